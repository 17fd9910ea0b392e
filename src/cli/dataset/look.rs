//! What `terrace dataset` shows: lists, one dataset, its versions, their files and differences.

use anyhow::{Result, bail};
use serde::Serialize;
use terrace_cache::units::Count;
use terrace_catalog::rest::wire::{
    Change, DatasetDetail, DatasetPage, DatasetQuery, DiffPage, DiffQuery, FilePage, FileQuery,
    ResolveQuery, VersionDetail, VersionPage, VersionQuery,
};
use terrace_catalog::{DatasetName, Selector};

use super::super::table::{Table, number, printable, size, utc};
use super::{FilesArgs, ListArgs, Output};
use crate::catalog::client::{CatalogClient, CatalogError};

/// Items of one request.
const PAGE: usize = 1000;

pub(super) async fn list(client: &CatalogClient, args: &ListArgs) -> Result<()> {
    let mut query = DatasetQuery {
        q: args.search.clone(),
        ns: args.namespace.clone(),
        kind: args.kind.clone(),
        after: None,
        limit: Some(PAGE),
    };
    let mut table = Table::new(&["NAME", "KIND", "LATEST", "COMMITTED (UTC)", "DESCRIPTION"]);
    let mut all = Vec::new();
    loop {
        let page: DatasetPage = client.get(&["datasets"], &query).await?;
        all.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    if args.output.json {
        return print_json(&all);
    }
    if all.is_empty() {
        println!("no datasets; try terrace dataset register -f FILE or terrace sync add URL");
        return Ok(());
    }
    for item in &all {
        table.row(vec![
            item.name.clone(),
            item.kind.clone(),
            item.latest
                .map_or("-".into(), |version| format!("v{version}")),
            utc(item.committed_ms),
            item.description.clone(),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

pub(super) async fn resolve(
    client: &CatalogClient,
    selector: &Selector,
) -> Result<VersionDetail, CatalogError> {
    let query = ResolveQuery {
        selector: selector.to_string(),
    };
    client.get(&["resolve"], &query).await
}

pub(super) async fn show(
    client: &CatalogClient,
    selector: &Selector,
    output: Output,
) -> Result<()> {
    let name = selector.dataset().as_str();
    let dataset: DatasetDetail = client.get(&["datasets", name], &()).await?;
    let version = match resolve(client, selector).await {
        Ok(version) => Some(version),
        // A dataset that is registered and waits for its first version.
        Err(error) if error.is_not_found() && dataset.summary.latest.is_none() => None,
        Err(error) => return Err(error.into()),
    };
    if output.json {
        return print_json(&serde_json::json!({"dataset": dataset, "version": version}));
    }
    println!("dataset      {}", dataset.summary.name);
    println!("kind         {}", dataset.summary.kind);
    if !dataset.summary.description.is_empty() {
        println!("description  {}", printable(&dataset.summary.description));
    }
    let tags = dataset.tags.iter().map(|(tag, v)| format!("{tag}=v{v}"));
    println!("tags         {}", tags.collect::<Vec<_>>().join(" "));
    let Some(version) = version else {
        println!("versions     none yet; terrace sync why {name} says why");
        return Ok(());
    };
    println!("version      v{}", version.summary.version);
    println!(
        "committed    {} UTC",
        utc(Some(version.summary.committed_ms))
    );
    println!("state        {}", version.summary.state);
    println!("location     {}", printable(&version.location));
    println!("format       {}", version.format);
    println!(
        "content      {}, {}, {} rows, {}",
        Count(version.summary.files, "file"),
        size(version.summary.bytes),
        number(version.summary.rows),
        Count(version.summary.partitions, "partition")
    );
    println!("manifest     {}", version.summary.manifest);
    Ok(())
}

pub(super) async fn versions(
    client: &CatalogClient,
    dataset: &DatasetName,
    limit: usize,
    output: Output,
) -> Result<()> {
    let mut all = Vec::new();
    let mut before = None;
    while all.len() < limit {
        let query = VersionQuery {
            before,
            limit: Some(PAGE.min(limit - all.len())),
        };
        let path = ["datasets", dataset.as_str(), "versions"];
        let page: VersionPage = client.get(&path, &query).await?;
        all.extend(page.items);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    if output.json {
        return print_json(&all);
    }
    let mut table = Table::new(&[
        "VERSION",
        "COMMITTED (UTC)",
        "PARTITIONS",
        "FILES",
        "SIZE",
        "ROWS",
        "STATE",
        "CAUSE",
    ]);
    for item in &all {
        table.row(vec![
            format!("v{}", item.version),
            utc(Some(item.committed_ms)),
            item.partitions.to_string(),
            item.files.to_string(),
            size(item.bytes),
            number(item.rows),
            item.state.clone(),
            item.cause.clone(),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

pub(super) async fn files(client: &CatalogClient, args: &FilesArgs) -> Result<()> {
    // Resolved once: every page is of the same version.
    let version = resolve(client, &args.selector).await?.summary;
    let number = version.version.to_string();
    let path = ["datasets", &version.dataset, "versions", &number, "files"];
    let mut query = FileQuery {
        prefix: args.prefix.clone(),
        after: None,
        limit: Some(10 * PAGE),
    };
    loop {
        let page: FilePage = client.get(&path, &query).await?;
        for file in &page.items {
            if args.output.json {
                println!("{}", serde_json::to_string(file)?);
            } else {
                println!("{:>10}  {}", size(file.size), printable(&file.path));
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(());
        }
    }
}

pub(super) async fn diff(
    client: &CatalogClient,
    from: &Selector,
    to: &str,
    output: Output,
) -> Result<()> {
    let name = from.dataset().as_str();
    // Without `@` the selector is the latest version, which differs from nothing.
    if from.to_string() == name {
        bail!("name the earlier version, for example terrace dataset diff {name}@v1 {to}");
    }
    let mut query = DiffQuery {
        from: from.version().to_string(),
        to: Some(later(from.dataset(), to)?),
        after: None,
        limit: Some(10 * PAGE),
    };
    loop {
        let page: DiffPage = client.get(&["datasets", name, "diff"], &query).await?;
        // The other pages are of the same two versions, whatever is committed meanwhile.
        query.from = format!("v{}", page.from);
        query.to = Some(format!("v{}", page.to));
        for item in &page.items {
            if output.json {
                println!("{}", serde_json::to_string(item)?);
                continue;
            }
            let sign = match item.change {
                Change::Added => '+',
                Change::Removed => '-',
                Change::Changed => '~',
            };
            let bytes = item.to_size.or(item.from_size).unwrap_or(0);
            println!("{sign} {:>10}  {}", size(bytes), printable(&item.path));
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(());
        }
    }
}

/// The later version of a comparison: what may follow `@`, or a whole selector of the same dataset.
fn later(dataset: &DatasetName, text: &str) -> Result<String> {
    if !text.contains('@') {
        return Ok(text.to_owned());
    }
    let selector: Selector = text.parse()?;
    if selector.dataset() != dataset {
        bail!("{text} is not a version of {dataset}; only versions of one dataset are compared");
    }
    Ok(selector.version().to_string())
}

pub(super) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
