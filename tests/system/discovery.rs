//! What discovery makes of real stores: `terrace sync try`.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::node::Node;
use crate::support::{need_hdfs, need_s3};

/// Writes a table below a place, part by part, and holds what discovery says against it.
fn table_appears(node: &Node, url: &str, put: impl Fn(&str, &[u8])) {
    let look = || -> serde_json::Value {
        let said = node.succeed(&["sync", "try", url, "--json"]);
        serde_json::from_str(&said).unwrap()
    };
    put(
        "ele.db/orders/dt=2026-11-20 07%3A00/part-0.csv",
        b"id,name\n1,x\n2,y\n",
    );
    put("ele.db/orders/_temporary/0/part-1.csv", b"id,name\n3,z\n");
    let said = look();
    let table = &said["tables"][0];
    assert_eq!(table["dataset"], "ele.orders", "{said}");
    assert_eq!(
        (&table["complete"], &table["syncing"]),
        (&0.into(), &1.into()),
        "{said}"
    );
    let reason = table["partitions"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("staging") && reason.contains("marker file missing"),
        "{reason}"
    );
    put("ele.db/clicks/part-0.csv", b"id,name\n1,x\n2,y\n");
    // A store that tells whole seconds cannot tell a marker of the same second from an older one.
    let began = Instant::now();
    loop {
        put("ele.db/clicks/_SUCCESS", b"done");
        let said = look();
        if said["tables"][0]["complete"] == 1 {
            assert_eq!(said["tables"][0]["version"], 1, "{said}");
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{said}");
    }
}

// Listings, times and reads of a real object store must mean to discovery what a directory's do.
#[test]
fn tables_on_s3_are_found() {
    let server = need_s3!("tables_on_s3_are_found");
    let bucket = server.bucket("discovery");
    let node = Node::new();
    let put = |key: &str, body: &[u8]| bucket.put(&format!("lake/{key}"), body);
    table_appears(&node, &bucket.url("lake"), put);
}

// The same on HDFS, where directories are real and times have milliseconds.
#[test]
fn tables_on_hdfs_are_found() {
    let cluster = need_hdfs!("tables_on_hdfs_are_found");
    let node = Node::new();
    let put = |key: &str, body: &[u8]| cluster.put(&format!("/discovery/{key}"), body);
    table_appears(&node, &format!("{}/discovery", cluster.native), put);
    cluster.remove("/discovery");
}

// The same in a directory; a place that is not there is an error and not an empty answer.
#[test]
fn tables_in_a_directory_are_found() {
    let node = Node::new();
    let place = node.scratch("warehouse");
    let put = |key: &str, body: &[u8]| {
        let path = place.join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    };
    let url = format!("file://{}", place.display());
    table_appears(&node, &url, put);
    let gone = node.terrace(&["sync", "try", &format!("{url}/gone")]);
    assert!(!gone.status.success());
}
