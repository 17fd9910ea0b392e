//! `terrace dataset delete`: two explicit steps with a delay between them, and what each would take.

use anyhow::{Result, bail};
use clap::Args;
use terrace_cache::units::Count;
use terrace_catalog::rest::wire::{RemovalPlan, RemoveQuery};
use terrace_catalog::{Selector, VersionRef};

use super::super::table::{printable, size, utc};
use super::{Output, print_json};
use crate::catalog::client::CatalogClient;

#[derive(Debug, Args)]
#[command(
    after_long_help = "Files that a sync system wrote stay where they are. Files in the catalog's own place \
    (models, managed copies) go with the next terrace catalog gc.\n\n\
    Example:\n  terrace dataset delete team.churn@v3 --model\n  \
    terrace dataset delete team.churn@v3 --model --confirm 0123456789abcdef"
)]
pub(super) struct DeleteArgs {
    /// namespace.table for all of it, or namespace.table@v3 for one version
    selector: Selector,
    /// It is a model, and that is meant
    #[arg(long)]
    model: bool,
    /// The token that the first step has printed: the second step
    #[arg(long, value_name = "TOKEN", conflicts_with = "keep")]
    confirm: Option<String>,
    /// Take the mark of the first step away again
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn delete(client: &CatalogClient, args: &DeleteArgs) -> Result<()> {
    let (selector, dataset) = (&args.selector, args.selector.dataset().as_str());
    let number;
    let path: Vec<&str> = match selector.version() {
        VersionRef::Latest if selector.to_string() == dataset => vec!["datasets", dataset],
        VersionRef::Number(version) => {
            number = format!("v{version}");
            vec!["datasets", dataset, "versions", &number]
        }
        // A tag could have moved between the two steps.
        _ => bail!(
            "{selector} may mean another version later; name it by its number, as {dataset}@v3"
        ),
    };
    let query = RemoveQuery {
        keep: args.keep,
        confirm: args.confirm.clone(),
        model: args.model,
    };
    let plan: RemovalPlan = client.delete(&path, &query).await?;
    if args.output.json {
        return print_json(&plan);
    }
    let what = format!(
        "{}, {}, {}",
        Count(plan.versions, "version"),
        Count(plan.files, "file"),
        size(plan.bytes)
    );
    match (&plan.confirm, plan.not_before_ms) {
        (Some(token), Some(at)) => {
            let model = if args.model { " --model" } else { "" };
            println!("{selector} is marked for removal: {what}");
            println!("not before   {} UTC", utc(Some(at)));
            println!(
                "to remove    terrace dataset delete {selector}{model} --confirm {}",
                printable(token)
            );
            println!("to keep      terrace dataset delete {selector}{model} --keep");
        }
        _ if plan.state == "removed" => println!("{selector} is removed: {what}"),
        _ => println!("{selector} is {}", printable(&plan.state)),
    }
    Ok(())
}
