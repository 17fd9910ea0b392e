//! Making a volume, and changing its limits.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::unistd::{Group, User};
use terrace_cache::units::ByteSize;
use terrace_csi::spaces::{NewSpace, SpaceKind, SpaceLimits, SpaceName, Spaces};

use super::{BaseArgs, Global};
use crate::cli::table::size;
use crate::node::space::now;
use crate::node::tenants::TenantName;

/// Units of a number of files: those of people, not of memory.
const COUNTS: [(&str, u64); 3] = [("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

/// Make a volume. The same call again answers the same volume.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    terrace volume create home/alice --quota 100GiB --files 1M --base /mnt/pfs\n  \
    terrace volume create project/vision --owner root:vision --quota 5TiB --tenant vision\n\n\
    A home is for its user alone (mode 0700), a project for its group (mode 2770: what is made in it \
    is the group's). The limit is kept by the file system where it has project quotas (XFS, ext4 with \
    prjquota), elsewhere by the daemon that mounts the volume.")]
pub(crate) struct CreateArgs {
    /// home/USER or project/NAME
    name: SpaceName,
    /// Most bytes [default: no limit]
    #[arg(long, value_name = "SIZE")]
    quota: Option<ByteSize>,
    /// Most files and directories, such as 500K or 1M [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = count)]
    files: Option<u64>,
    /// Whose it is: USER, USER:GROUP or numbers [default: of home/USER that user]
    #[arg(long, value_name = "USER[:GROUP]")]
    owner: Option<String>,
    /// Whose budgets its mounts use, unless they say otherwise
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantName>,
    #[command(flatten)]
    base: BaseArgs,
}

/// Change what a volume may take. It holds within seconds wherever the volume is mounted.
#[derive(Debug, Args)]
#[command(
    after_long_help = "A limit that is not named stays as it is; `none` takes it away. With less \
    than the volume takes already, nothing more fits in until enough is removed."
)]
pub(crate) struct QuotaArgs {
    /// home/USER or project/NAME
    name: SpaceName,
    /// Most bytes, or none
    #[arg(long, value_name = "SIZE|none", value_parser = size_or_none)]
    quota: Option<Limit>,
    /// Most files and directories, or none
    #[arg(long, value_name = "COUNT|none", value_parser = count_or_none)]
    files: Option<Limit>,
    #[command(flatten)]
    base: BaseArgs,
}

fn count(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let factor = match COUNTS.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => Some(*factor),
        None => unit.is_empty().then_some(1),
    };
    let number = digits.parse::<u64>().ok().zip(factor);
    number
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| format!("`{text}` is not a number of files; write 1000, 500K or 1M"))
}

/// A limit that was named; `None`: there shall be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<u64>);

fn size_or_none(text: &str) -> Result<Limit, String> {
    let size = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
    or_none(text, size)
}

fn count_or_none(text: &str) -> Result<Limit, String> {
    or_none(text, count)
}

fn or_none(text: &str, number: impl Fn(&str) -> Result<u64, String>) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        _ => number(text).map(|number| Limit(Some(number))),
    }
}

pub(super) fn create(args: &CreateArgs, global: &Global) -> Result<()> {
    let what = || format!("create the volume {}", args.name);
    let (uid, gid) = owner(&args.name, args.owner.as_deref()).with_context(what)?;
    let limits = SpaceLimits {
        bytes: args.quota.map(|quota| quota.0),
        files: args.files,
    };
    let spaces = Spaces::adopt(&args.base.path(global)?).with_context(what)?;
    let made = spaces.create(&NewSpace {
        name: args.name.clone(),
        uid,
        gid,
        limits,
        tenant: args.tenant.as_ref().map(ToString::to_string),
        now: now(),
    });
    let record = made.with_context(what)?;
    println!("{} is there, {}", record.name, described(record.limits));
    Ok(())
}

pub(super) fn quota(args: &QuotaArgs, global: &Global) -> Result<()> {
    ensure!(
        args.quota.is_some() || args.files.is_some(),
        "say what to change: --quota SIZE, --files COUNT, or both"
    );
    let spaces = args.base.open(global)?;
    let before = spaces.space(&args.name)?.limits;
    let limits = SpaceLimits {
        bytes: args.quota.map_or(before.bytes, |limit| limit.0),
        files: args.files.map_or(before.files, |limit| limit.0),
    };
    let what = || format!("limit the volume {}", args.name);
    let record = spaces.set_limits(&args.name, limits).with_context(what)?;
    println!("{} has {} now", record.name, described(record.limits));
    Ok(())
}

fn described(limits: SpaceLimits) -> String {
    let bytes = limits.bytes.map(|bytes| format!("at most {}", size(bytes)));
    let files = limits.files.map(|files| format!("at most {files} files"));
    let both: Vec<String> = bytes.into_iter().chain(files).collect();
    match both.is_empty() {
        true => "no limit".to_owned(),
        false => both.join(" and "),
    }
}

/// User and group of a new volume.
fn owner(name: &SpaceName, named: Option<&str>) -> Result<(u32, u32)> {
    let named = match (named, name.kind()) {
        (Some(named), _) => named,
        (None, SpaceKind::Home) => name.word(),
        (None, SpaceKind::Project) => {
            bail!("say whose it is: --owner USER:GROUP; its group may write in it")
        }
        (None, SpaceKind::Volume | SpaceKind::Snapshot) => {
            bail!("say whose it is: --owner USER:GROUP; those of Kubernetes are root's")
        }
    };
    let (user, group) = match named.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (named, None),
    };
    let known = match user.parse::<u32>() {
        Ok(uid) => User::from_uid(uid.into()),
        Err(_) => User::from_name(user),
    };
    let known = known.with_context(|| format!("look the user {user} up"))?;
    let uid = known.as_ref().map(|user| user.uid.as_raw());
    let uid = uid.or_else(|| user.parse().ok());
    let uid = uid
        .with_context(|| format!("there is no user {user} on this machine; use --owner UID:GID"))?;
    let gid = match group {
        Some(group) => group_id(group)?,
        None => known.map(|user| user.gid.as_raw()).with_context(|| {
            format!("the group of user {user} is not known; use --owner {user}:GROUP")
        })?,
    };
    Ok((uid, gid))
}

fn group_id(group: &str) -> Result<u32> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let known = Group::from_name(group).with_context(|| format!("look the group {group} up"))?;
    let gid = known.map(|group| group.gid.as_raw());
    gid.with_context(|| format!("there is no group {group} on this machine; use --owner UID:GID"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it a limit would be a thousandth of what was meant, or somebody else own the volume.
    #[test]
    fn counts_and_owners_are_what_people_write() {
        assert_eq!(count("1M"), Ok(1_000_000));
        assert_eq!(count("500K"), Ok(500_000));
        assert_eq!(count("12"), Ok(12));
        for bad in ["", "M", "1Mi", "-1", "1.5M", "99999999999G"] {
            assert!(count(bad).is_err(), "{bad:?}");
        }
        assert_eq!(count_or_none("none"), Ok(Limit(None)));
        assert_eq!(size_or_none("1KiB"), Ok(Limit(Some(1024))));
        let home: SpaceName = "home/root".parse().unwrap();
        let project: SpaceName = "project/x".parse().unwrap();
        assert_eq!(owner(&home, None).unwrap(), (0, 0));
        assert_eq!(owner(&project, Some("4242:4343")).unwrap(), (4242, 4343));
        assert_eq!(owner(&project, Some("0:root")).unwrap(), (0, 0));
        for (name, named) in [
            (&project, None),
            (&project, Some("4242")),
            (&project, Some("no-such-user")),
            (&project, Some("root:no-such-group")),
        ] {
            assert!(owner(name, named).is_err(), "{named:?}");
        }
    }
}
