//! The yardstick of the cold benchmarks: what the client libraries do alone, without Terrace.
//!
//! ```text
//! plain_get ranged URL [PARALLEL]    one object, 8 MiB ranged reads, PARALLEL at once (default 8)
//! plain_get serial URL [PARALLEL]    every object below a prefix, whole, PARALLEL at once (default 1)
//! ```
//! Prints `bytes objects seconds` on one line. Bytes are counted and dropped. `hdfs://` URLs are read
//! with one stream of the HDFS client. Credentials: AWS_* in the environment.

use std::error::Error;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

const PART: u64 = 8 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, mode, url, rest @ ..] = args.as_slice() else {
        return Err("usage: plain_get ranged|serial URL [PARALLEL]".into());
    };
    let parallel = rest.first().map(|text| text.parse()).transpose()?;
    let start = Instant::now();
    let (bytes, objects) = match (mode.as_str(), url.strip_prefix("s3://")) {
        (_, None) => hdfs(url).await?,
        ("ranged", Some(place)) => ranged(place, parallel.unwrap_or(8)).await?,
        ("serial", Some(place)) => serial(place, parallel.unwrap_or(1)).await?,
        _ => return Err(format!("unknown mode {mode}").into()),
    };
    println!("{bytes} {objects} {:.6}", start.elapsed().as_secs_f64());
    Ok(())
}

fn s3(place: &str) -> Result<(impl ObjectStore, Path), Box<dyn Error>> {
    let (bucket, key) = place.split_once('/').ok_or("name an object or a prefix")?;
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .build()?;
    Ok((store, Path::parse(key)?))
}

async fn ranged(place: &str, parallel: usize) -> Result<(u64, u64), Box<dyn Error>> {
    let (store, key) = s3(place)?;
    let size = store.head(&key).await?.size;
    let parts = (0..size.div_ceil(PART)).map(|part| part * PART..((part + 1) * PART).min(size));
    let bytes = futures::stream::iter(parts)
        .map(|range| async {
            Ok::<_, object_store::Error>(store.get_range(&key, range).await?.len())
        })
        .buffer_unordered(parallel)
        .try_fold(0, |sum, n| async move { Ok(sum + n as u64) })
        .await?;
    Ok((bytes, 1))
}

async fn serial(place: &str, parallel: usize) -> Result<(u64, u64), Box<dyn Error>> {
    let (store, prefix) = s3(place)?;
    let keys: Vec<_> = store.list(Some(&prefix)).try_collect().await?;
    let objects = keys.len() as u64;
    let start = Instant::now();
    let bytes = futures::stream::iter(keys)
        .map(|meta| {
            let store = &store;
            async move { store.get(&meta.location).await?.bytes().await }
        })
        .buffer_unordered(parallel)
        .try_fold(0, |sum, body| async move { Ok(sum + body.len() as u64) })
        .await?;
    eprintln!("without listing: {:.6}", start.elapsed().as_secs_f64());
    Ok((bytes, objects))
}

async fn hdfs(url: &str) -> Result<(u64, u64), Box<dyn Error>> {
    let place = url.strip_prefix("hdfs://").ok_or("name s3:// or hdfs://")?;
    let (authority, path) = place.split_once('/').ok_or("name a file")?;
    let client = hdfs_native::ClientBuilder::new()
        .with_url(format!("hdfs://{authority}"))
        .build()?;
    let reader = client.read(&format!("/{path}")).await?;
    let size = reader.file_length();
    let mut stream = Box::pin(reader.read_range_stream(0, size));
    let mut bytes = 0;
    while let Some(piece) = stream.next().await {
        bytes += piece?.len() as u64;
    }
    Ok((bytes, 1))
}
