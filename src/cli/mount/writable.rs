//! What a mount for reading and writing is asked to be: a directory, or a space with its limits, and where
//! its contents may go.

use std::path::Path;

use anyhow::{Context, bail};
use terrace_cache::store::{Scheme, StoreUrl};
use terrace_csi::spaces::{SpaceName, Spaces};
use terrace_fuse::directory::Durability;

use super::{MountArgs, NO_LOCKS, ProfileArg};
use crate::cli::Global;
use crate::cli::source::Source;
use crate::cli::volume::read_policy;
use crate::node::options::{ColdOptions, DirectoryOptions, SpaceOptions};
use crate::node::tenants::TenantName;

/// What a volume for reading and writing is asked to be.
pub(super) fn directory(args: &MountArgs, source: &Source) -> anyhow::Result<DirectoryOptions> {
    let root = match source {
        Source::Store(url) if url.scheme() == Scheme::File => Path::new("/").join(url.prefix()),
        _ => bail!("only a directory can be written; use file:///DIR, or mount without --rw"),
    };
    check_rules(args)?;
    let root = root.canonicalize().context("look at the directory")?;
    Ok(DirectoryOptions {
        cold: cold(args, &root)?,
        root,
        refuse_locks: args.options.iter().any(|option| option == NO_LOCKS),
        durability: args.durability.clone(),
        spool: args.spool.as_deref().map(std::path::absolute).transpose()?,
        spool_size: args.spool_size,
        space: None,
        ssd_cache: args.ssd_cache,
        revalidate: args.revalidate,
    })
}

/// Refuses rules that cannot be understood, or kept.
fn check_rules(args: &MountArgs) -> anyhow::Result<()> {
    let rules = Durability::parse(&args.durability).context("understand --durability")?;
    rules
        .check(args.cold.is_some())
        .context("keep --durability")
}

/// Where contents of a volume go.
fn cold(args: &MountArgs, root: &Path) -> anyhow::Result<Option<ColdOptions>> {
    let Some(cold) = &args.cold else {
        return Ok(None);
    };
    let url: StoreUrl = cold
        .parse()
        .map_err(|error| anyhow::anyhow!("--cold: {error}"))?;
    match url.scheme() {
        Scheme::S3 | Scheme::Hdfs => {}
        Scheme::File => {
            let path = Path::new("/").join(url.prefix());
            let path = path
                .canonicalize()
                .with_context(|| format!("look at the cold store {}", path.display()))?;
            anyhow::ensure!(
                !path.starts_with(root),
                "the cold store lies in the volume itself; use a directory outside of it"
            );
        }
        Scheme::WebHdfs { .. } => {
            bail!("{cold} takes no files; use s3://, hdfs:// or file:/// as the cold store")
        }
    }
    let policy = args.tier_policy.as_deref().map(read_policy).transpose()?;
    Ok(Some(ColdOptions {
        url: cold.clone(),
        policy,
    }))
}

/// What a space is asked to be, and whose budgets it uses.
pub(super) fn space(
    args: &MountArgs,
    name: &SpaceName,
    global: &Global,
) -> anyhow::Result<(DirectoryOptions, Option<TenantName>)> {
    if args.snapshot || args.warm.is_some() || args.profile != ProfileArg::Default {
        bail!("a volume is for reading and writing: leave --snapshot, --warm and --profile out");
    }
    check_rules(args)?;
    let base = args.base.path(global)?;
    let base = base
        .canonicalize()
        .context("look at the directory of volumes")?;
    let spaces = Spaces::open(&base)?;
    let record = spaces.space(name)?;
    let tenant = record.tenant.map(TenantName::try_from).transpose()?;
    let root = spaces.directory(name)?;
    let directory = DirectoryOptions {
        cold: cold(args, &root)?,
        root,
        refuse_locks: args.options.iter().any(|option| option == NO_LOCKS),
        durability: args.durability.clone(),
        spool: args.spool.as_deref().map(std::path::absolute).transpose()?,
        spool_size: args.spool_size,
        space: Some(SpaceOptions {
            base,
            name: name.clone(),
        }),
        ssd_cache: args.ssd_cache,
        revalidate: args.revalidate,
    };
    Ok((directory, tenant))
}
