//! Bytes per second of a store beside the client library alone, on the same server, interleaved.
//!
//! Run with `--nocapture` to see the figures. HDFS has two baselines: whole ranges by the client's
//! `read_range`, and its pieces dropped as they come, which no reader of the bytes could reach: the
//! buffers never leave the processor's cache. Both sides read the same object by the same parallel
//! ranges of 8 MiB and drop the bytes; the median of the rounds' ratios is taken. The bounds here
//! only catch a broken read path: shared machines are too noisy for more.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

#[path = "store_common/servers.rs"]
mod servers;

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore as _;
use object_store::aws::AmazonS3Builder;
use servers::{encoded, http, server};
use store_common::{content, credentials, quick, read, read_error};
use terrace_cache::Source as _;
use terrace_cache::store::{Credentials, Store, StoreConfig, StoreUrl};
use terrace_cache::units::Span;

const SIZE: usize = 192 << 20;
const RANGE: u64 = 8 << 20;
const PARALLEL: usize = 8;
const ROUNDS: usize = 7;
/// Far below what is measured on a quiet machine.
const BROKEN: f64 = 0.4;

fn ranges() -> impl Iterator<Item = Range<u64>> {
    (0..SIZE as u64)
        .step_by(RANGE as usize)
        .map(|start| start..(start + RANGE).min(SIZE as u64))
}

/// One pass over all ranges: wall time and processor time of this process, in seconds.
#[derive(Clone, Copy)]
struct Pass {
    wall: f64,
    cpu: f64,
}

fn cpu() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Runs `one` over all ranges, several at a time.
async fn timed<F: Future<Output = u64>>(one: impl Fn(Range<u64>) -> F) -> Pass {
    let (start, before) = (Instant::now(), cpu());
    let sizes: Vec<u64> = futures::stream::iter(ranges().map(one))
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    assert_eq!(sizes.iter().sum::<u64>(), SIZE as u64);
    Pass {
        wall: start.elapsed().as_secs_f64(),
        cpu: cpu() - before,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the figures; the ratio is the median of the rounds' ratios. The first round warms up.
fn compare(what: &str, ours: &[Pass], plain: &[Pass]) {
    let (ours, plain) = (&ours[1..], &plain[1..]);
    let rate = |passes: &[Pass]| SIZE as f64 / median(passes.iter().map(|pass| pass.wall)) / 1e6;
    let gib = (SIZE as f64) / f64::from(1 << 30);
    let cost = |passes: &[Pass]| median(passes.iter().map(|pass| pass.cpu)) / gib;
    let ratio = median(
        ours.iter()
            .zip(plain)
            .map(|(ours, plain)| plain.wall / ours.wall),
    );
    println!(
        "{what}: store {:.0} MB/s and {:.2} CPU-s/GiB, client alone {:.0} MB/s and {:.2}, ratio {ratio:.2}",
        rate(ours),
        cost(ours),
        rate(plain),
        cost(plain),
    );
    assert!(
        ratio > BROKEN,
        "{what}: the store reads at {ratio:.2} of its client"
    );
}

/// One measurement at a time.
static QUIET: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn patient() -> StoreConfig {
    let long = Span(Duration::from_secs(30));
    StoreConfig {
        attempt_timeout: long,
        stall_timeout: long,
        deadline: long,
        ..quick()
    }
}

async fn drained(store: &Store, object: &terrace_cache::ObjectId, range: Range<u64>) -> u64 {
    let mut stream = store.read(object, range).await.unwrap();
    let mut size = 0;
    while let Some(piece) = stream.try_next().await.unwrap() {
        size += piece.len() as u64;
    }
    size
}

// Without it a copy or a stall in the S3 read path would go unnoticed until users measure it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_reads_as_fast_as_its_client() {
    let test = "s3_reads_as_fast_as_its_client";
    let Some(endpoint) = server(test, "TERRACE_TEST_S3") else {
        return;
    };
    let Some(filer) = server(test, "TERRACE_TEST_S3_FILER") else {
        return;
    };
    let _quiet = QUIET.lock().await;
    let bucket = format!("store-speed-{}", std::process::id());
    let address = format!("{filer}/buckets/{bucket}");
    assert!(
        http(
            "PUT",
            &format!("{address}/{}", encoded("big")),
            &content(1, SIZE)
        )
        .await
        .0 < 300
    );
    let environment = Credentials::new(std::env::vars());
    let url: StoreUrl = format!("s3://{bucket}").parse().unwrap();
    let store = Store::open(&url, &patient(), &environment).await.unwrap();
    let object = store.object(&store.head("big").await.unwrap());
    let plain = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_bucket_name(&bucket)
        .with_access_key_id(environment.get("AWS_ACCESS_KEY_ID").unwrap())
        .with_secret_access_key(environment.get("AWS_SECRET_ACCESS_KEY").unwrap())
        .build()
        .unwrap();
    let path = object_store::path::Path::from("big");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..=ROUNDS {
        ours.push(timed(|range| drained(&store, &object, range)).await);
        let get = |range: Range<u64>| {
            let (plain, path) = (&plain, &path);
            async move {
                let options = object_store::GetOptions {
                    range: Some(range.into()),
                    ..Default::default()
                };
                let mut stream = plain.get_opts(path, options).await.unwrap().into_stream();
                let mut size = 0;
                while let Some(piece) = stream.try_next().await.unwrap() {
                    size += piece.len() as u64;
                }
                size
            }
        };
        theirs.push(timed(get).await);
    }
    http("DELETE", &format!("{address}?recursive=true"), b"").await;
    compare("s3", &ours, &theirs);
}

// Without it the checks around HDFS reads could cost more than the reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hdfs_reads_as_fast_as_its_client() {
    let test = "hdfs_reads_as_fast_as_its_client";
    let Some(native) = server(test, "TERRACE_TEST_HDFS") else {
        return;
    };
    let Some(web) = server(test, "TERRACE_TEST_WEBHDFS") else {
        return;
    };
    let _quiet = QUIET.lock().await;
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap()
        .name;
    let key = format!("store-speed-{}", std::process::id());
    let base = web.replace("webhdfs://", "http://");
    let operation = |query: &str| format!("{base}/webhdfs/v1/{key}?{query}&user.name={user}");
    let (_, location, _) = http("PUT", &operation("op=CREATE&overwrite=true"), b"").await;
    assert!(http("PUT", &location, &content(1, SIZE)).await.0 < 300);

    let credentials = credentials(&[("HADOOP_USER_NAME", &user)]);
    let open = async |url: &str| {
        let url: StoreUrl = url.parse().unwrap();
        let store = Store::open(&url, &patient(), &credentials).await.unwrap();
        let object = store.object(&store.head(&key).await.unwrap());
        (store, object)
    };
    let mut bare = Vec::new();
    let (store, object) = open(&native).await;
    let builder = hdfs_native::ClientBuilder::new()
        .with_url(&native)
        .with_user(&user);
    let client = builder.build().unwrap();
    let reader = Arc::new(client.read(&format!("/{key}")).await.unwrap());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..=ROUNDS {
        ours.push(timed(|range| drained(&store, &object, range)).await);
        let whole = |range: Range<u64>| {
            let reader = Arc::clone(&reader);
            async move {
                let (start, size) = (range.start as usize, (range.end - range.start) as usize);
                reader.read_range(start, size).await.unwrap().len() as u64
            }
        };
        theirs.push(timed(whole).await);
        let dropped = |range: Range<u64>| {
            let (start, size) = (range.start as usize, (range.end - range.start) as usize);
            let pieces = reader.read_range_stream(start, size);
            pieces.try_fold(0, |sum, piece| async move { Ok(sum + piece.len() as u64) })
        };
        bare.push(timed(|range| dropped(range).map(Result::unwrap)).await);
    }
    let (store, object) = open(&web).await;
    let mut rest = Vec::new();
    for _ in 0..3 {
        rest.push(timed(|range| drained(&store, &object, range)).await);
    }
    println!(
        "webhdfs: store {:.0} MB/s",
        SIZE as f64 / median(rest.iter().map(|pass: &Pass| pass.wall)) / 1e6
    );
    let got = read(&store, &object, 5..500_000).await.unwrap();
    assert!(got == content(1, SIZE)[5..500_000]);
    http("DELETE", &operation("op=DELETE"), b"").await;
    let gone = read_error(&store, &object, 0..1, &content(1, 1)).await;
    assert_eq!(gone, terrace_cache::store::StoreErrorKind::Changed);
    compare("hdfs against dropped pieces", &ours, &bare);
    compare("hdfs against whole ranges", &ours, &theirs);
}
