//! `terrace dataset`: datasets and their versions in a catalog.

mod look;
mod remove;
mod save;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use reqwest::Method;
use terrace_cache::units::ByteSize;
use terrace_catalog::descriptor::Descriptor;
use terrace_catalog::rest::wire::{DatasetDetail, Removal, TagItem, TagRequest};
use terrace_catalog::{DatasetName, Selector, TagName};

use look::{diff, files, list, print_json, resolve, show, versions};

use super::upkeep::ScrubArgs;
use super::{Failure, Global};
use crate::catalog::client::CatalogClient;
use crate::catalog::place::CatalogArgs;

/// See and change datasets in a catalog.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    terrace dataset list --namespace ads\n  \
    terrace dataset files ads.clicks@v12 --prefix dt=2026-11-20/\n  \
    terrace dataset register -f clicks.yaml\n  \
    terrace dataset tag ads.clicks@v12 prod")]
pub(crate) struct DatasetArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List datasets
    List(ListArgs),
    /// Show a dataset, or one version of it
    Show {
        /// namespace.table, and behind it @v12, @tag or @2026-11-20 for a version
        selector: Selector,
        #[command(flatten)]
        output: Output,
    },
    /// List the versions of a dataset, the newest first
    Versions {
        /// namespace.table
        dataset: DatasetName,
        /// Most versions to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        output: Output,
    },
    /// List the files of a version
    Files(FilesArgs),
    /// Make a dataset, or change its descriptor
    Register {
        /// The descriptor, YAML or JSON
        #[arg(short = 'f', long = "file", value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Save a directory as a version of a model: checked, immutable, kept until you delete it
    Save(save::SaveArgs),
    /// Let a tag name a version
    Tag {
        /// The version: namespace.table, and behind it @v12, @tag or @2026-11-20
        selector: Selector,
        /// The tag
        tag: TagName,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a tag; the version stays
    Untag {
        /// namespace.table
        dataset: DatasetName,
        /// The tag
        tag: TagName,
    },
    /// List the files that differ between two versions
    Diff {
        /// The earlier version: namespace.table@v11
        from: Selector,
        /// The later version: v12, a tag, a day or latest; or namespace.table@v12
        #[arg(default_value = "latest")]
        to: String,
        #[command(flatten)]
        output: Output,
    },
    /// Read manifests and saved files of a dataset or model back and compare digests; a damaged version is
    /// marked
    Verify(VerifyArgs),
    /// Say which nodes have how much of a dataset near, and who holds which version
    Heat {
        /// namespace.table
        dataset: DatasetName,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a dataset, a model or a version, in two steps: the first marks it and shows what would
    /// go; the second, with the token of the first and after a delay, removes it
    Delete(remove::DeleteArgs),
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// namespace.table
    dataset: DatasetName,
    /// Most bytes of files read a second; 0B for no limit [default: 100MiB]
    #[arg(long, value_name = "SIZE")]
    rate: Option<ByteSize>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only names and descriptions that contain this text
    search: Option<String>,
    /// Only this namespace
    #[arg(long, short, value_name = "NS")]
    namespace: Option<String>,
    /// Only this kind: dataset or model
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct FilesArgs {
    /// namespace.table, and behind it @v12, @tag or @2026-11-20
    selector: Selector,
    /// Only paths that begin with this text
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Args)]
struct Output {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DatasetArgs, global: &Global) -> Result<(), Failure> {
    let client = args.catalog.client(&global.run_base())?;
    let runtime = crate::control::client::runtime()?;
    Ok(runtime.block_on(act(&client, &args.verb))?)
}

async fn act(client: &CatalogClient, verb: &Verb) -> Result<()> {
    match verb {
        Verb::List(args) => list(client, args).await,
        Verb::Show { selector, output } => show(client, selector, *output).await,
        Verb::Versions {
            dataset,
            limit,
            output,
        } => versions(client, dataset, *limit, *output).await,
        Verb::Files(args) => files(client, args).await,
        Verb::Register { file, output } => register(client, file, *output).await,
        Verb::Save(args) => save::save(client, args).await,
        Verb::Tag {
            selector,
            tag,
            output,
        } => set_tag(client, selector, tag, *output).await,
        Verb::Untag { dataset, tag } => {
            let path = ["datasets", dataset.as_str(), "tags", tag.as_str()];
            let _: Removal = client.delete(&path, &()).await?;
            Ok(())
        }
        Verb::Diff { from, to, output } => diff(client, from, to, *output).await,
        Verb::Verify(args) => {
            let scrub = ScrubArgs::of(args.dataset.clone(), args.rate, args.output.json);
            super::upkeep::scrub(client, &scrub).await
        }
        Verb::Heat { dataset, output } => super::nodes::heat(client, dataset, output.json).await,
        Verb::Delete(args) => remove::delete(client, args).await,
    }
}

async fn register(client: &CatalogClient, file: &Path, output: Output) -> Result<()> {
    let what = || format!("register {}", file.display());
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    // Parsed here too: the name is a part of the path, and an error needs no catalog to be found.
    let descriptor = Descriptor::parse(&text).with_context(what)?;
    let name = descriptor.name.as_str();
    let path = ["datasets", name];
    let made: DatasetDetail = client
        .send_text(Method::PUT, &path, "application/yaml", text.into())
        .await
        .with_context(what)?;
    if output.json {
        return print_json(&made);
    }
    println!("{name} is registered");
    Ok(())
}

async fn set_tag(
    client: &CatalogClient,
    selector: &Selector,
    tag: &TagName,
    output: Output,
) -> Result<()> {
    let version = resolve(client, selector).await?.summary;
    let path = ["datasets", &version.dataset, "tags", tag.as_str()];
    let request = TagRequest {
        version: version.version,
    };
    let set: TagItem = client.send_json(Method::PUT, &path, &request).await?;
    if output.json {
        return print_json(&set);
    }
    println!("{}@{} is v{}", version.dataset, set.tag, set.version);
    Ok(())
}
