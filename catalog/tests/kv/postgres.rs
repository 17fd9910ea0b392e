//! PostgreSQL: the fixture (two replicas of the catalog on one schema), and what only a server on the
//! other end of a wire can do.

use std::sync::Arc;
use std::time::Duration;

use terrace_catalog::kv::postgres::{PostgresConfig, PostgresKv};
use terrace_catalog::kv::{Compare, Kv, KvError, Txn, TxnOutcome};
use tokio_postgres::NoTls;

use super::Fixture;
use super::suite::{bytes, revision};

/// The server's URL; without one, says what is skipped.
fn server(test: &str) -> Option<String> {
    let url = std::env::var("TERRACE_TEST_POSTGRES").ok();
    if url.is_none() {
        println!("SKIP kv::on_postgres::{test}: TERRACE_TEST_POSTGRES is not set (no PostgreSQL)");
    }
    url
}

/// A client of the test's own, for what the product never does.
async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move {
        // Ends with the client.
        let _ = connection.await;
    });
    client
}

/// A schema of its own on the server, and a name for its connections.
async fn schema(url: &str, test: &str) -> String {
    let name = format!("t_{test}_{:08x}", std::process::id());
    let client = client(url).await;
    let statement = format!("drop schema if exists {name} cascade; create schema {name}");
    client.batch_execute(&statement).await.unwrap();
    format!("{url} application_name={name} options='-c search_path={name}'")
}

pub(crate) async fn fixture(test: &str) -> Option<Fixture> {
    let url = schema(&server(test)?, test).await;
    // At once, as replicas of a deployment start.
    let open = || PostgresKv::open(PostgresConfig::new(&url));
    let (kv, other) = tokio::join!(open(), open());
    Some(Fixture {
        kv: Arc::new(kv.unwrap()),
        other: Arc::new(other.unwrap()),
        _directory: None,
    })
}

// A server that is restarted under the catalog must cost a moment, and no change twice or half.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_are_made_again() {
    let test = "lost_connections_are_made_again";
    let Some(server) = server(test) else {
        return;
    };
    let url = schema(&server, test).await;
    let kv = Arc::new(PostgresKv::open(PostgresConfig::new(&url)).await.unwrap());
    let name = format!("t_{test}_{:08x}", std::process::id());
    // An application_name has at most 63 bytes.
    let name = &name[..name.len().min(63)];
    let killer = client(&server).await;
    let mut watch = kv.watch(b"n").await.unwrap();
    let (mut count, mut unknown, mut killed) = (0u64, 0, 0);
    for round in 0..40 {
        if round % 8 == 4 {
            let statement = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                             where application_name = $1";
            let row = killer.query_one(statement, &[&name]).await.unwrap();
            killed += row.get::<_, i64>(0);
        }
        // As every caller does: look, compare, try again.
        let stored = loop {
            match kv.get(b"n").await {
                Ok(stored) => break stored,
                Err(KvError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        };
        let found = stored.as_ref().map_or(0, |stored| {
            std::str::from_utf8(&stored.value).unwrap().parse().unwrap()
        });
        assert!(
            found == count || (unknown > 0 && found == count + 1),
            "{found} after {count}"
        );
        count = found;
        unknown = 0;
        let next = bytes(&(count + 1).to_string());
        let txn = Txn::new()
            .unchanged(bytes("n"), stored.as_ref())
            .put(bytes("n"), next);
        match kv.txn(txn).await {
            Ok(TxnOutcome::Committed { .. }) => count += 1,
            Err(KvError::Unknown(_)) => unknown += 1,
            Err(KvError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(killed >= 5, "only {killed} connections were cut");
    assert!(count > 20);
    // The listening connection was cut too: the watch still wakes.
    while watch.changed().await.is_ok() {
        let found = kv.get(b"n").await.unwrap().unwrap();
        if found.value == bytes(&count.to_string()) || unknown > 0 {
            break;
        }
    }
}

// A database that does not answer must cost a deadline, not a request for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_server_costs_a_deadline() {
    let test = "a_stuck_server_costs_a_deadline";
    let Some(server) = server(test) else {
        return;
    };
    let url = schema(&server, test).await;
    let config = PostgresConfig {
        deadline: Duration::from_secs(1),
        ..PostgresConfig::new(&url)
    };
    let kv = PostgresKv::open(config).await.unwrap();
    revision(
        kv.txn(Txn::new().put(bytes("k"), bytes("1")))
            .await
            .unwrap(),
    );
    let blocker = client(&url).await;
    let lock = "begin; lock table terrace_kv_head in access exclusive mode";
    blocker.batch_execute(lock).await.unwrap();
    let change = || {
        Txn::new()
            .when(Compare::Value(bytes("k"), bytes("1")))
            .put(bytes("k"), bytes("2"))
    };
    let stuck = kv.txn(change()).await.unwrap_err();
    assert!(
        matches!(stuck, KvError::Unknown(_) | KvError::Unavailable(_)),
        "{stuck}"
    );
    assert!(
        kv.get(b"k").await.unwrap().is_some(),
        "readers wait for a writer"
    );
    blocker.batch_execute("rollback").await.unwrap();
    // Whatever became of it, the next one is decided on what is there.
    let again = loop {
        match kv.txn(change()).await {
            Ok(outcome) => break outcome,
            Err(KvError::Unknown(_) | KvError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let value = kv.get(b"k").await.unwrap().unwrap().value;
    assert_eq!(value, bytes("2"), "{again:?}");
}

// A password in a log is a password that must be changed.
#[tokio::test]
async fn errors_do_not_tell_the_password() {
    for url in [
        "postgresql://user:s3cret-word@127.0.0.1:1/none?connect_timeout=1",
        "postgresql://user:s3cret-word@[bad",
    ] {
        let config = PostgresConfig::new(url);
        assert!(!format!("{config:?}").contains("s3cret-word"));
        let error = PostgresKv::open(config).await.unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("s3cret-word"),
            "{error}"
        );
    }
}

// A password and every name in the catalog cross a network that others may sit on: encrypted must mean
// encrypted, and a server that cannot show whom it is must not be believed when that was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_as_encrypted_as_was_asked() {
    let test = "connections_are_as_encrypted_as_was_asked";
    let (Some(server), Ok(root)) = (server(test), std::env::var("TERRACE_TEST_POSTGRES_CA")) else {
        println!("SKIP kv::on_postgres::{test}: no PostgreSQL with TLS");
        return;
    };
    let observer = client(&server).await;
    let url = schema(&server, test).await;
    let (host, elsewhere) = ("host=127.0.0.1", "host=elsewhere.test hostaddr=127.0.0.1");
    let machine = "sslrootcert=/etc/ssl/certs/ca-certificates.crt";
    let own = format!("sslrootcert='{root}'");
    let cases = [
        (host, "sslmode=disable", "", Some(false)),
        (host, "", "", Some(true)),
        (host, "sslmode=require", "", Some(true)),
        (host, "sslmode=verify-ca", own.as_str(), Some(true)),
        (host, "sslmode=verify-full", own.as_str(), Some(true)),
        (elsewhere, "sslmode=require", "", Some(true)),
        (elsewhere, "sslmode=verify-ca", own.as_str(), Some(true)),
        (elsewhere, "sslmode=verify-full", own.as_str(), None),
        (host, "sslmode=verify-full", machine, None),
        (host, "sslmode=require", machine, None),
        (
            host,
            "sslmode=verify-full",
            "sslrootcert=/nowhere.pem",
            None,
        ),
        (host, "sslmode=verify-full", "", None),
    ];
    for (at, (place, mode, roots, expected)) in cases.into_iter().enumerate() {
        let name = format!("tls_{at}_{:08x}", std::process::id());
        let url = url.replace(host, place);
        let url = format!("{url} {mode} {roots} application_name={name}");
        let opened = PostgresKv::open(PostgresConfig::new(&url)).await;
        let found = match &opened {
            Err(_) => None,
            Ok(kv) => {
                kv.get(b"n").await.unwrap();
                let asked = "select bool_and(s.ssl), count(*) from pg_stat_ssl s \
                    join pg_stat_activity a using (pid) where a.application_name = $1";
                let row = observer.query_one(asked, &[&name]).await.unwrap();
                assert!(
                    row.get::<_, i64>(1) > 0,
                    "{place} {mode}: no connection was seen"
                );
                row.get::<_, Option<bool>>(0)
            }
        };
        assert_eq!(
            found,
            expected,
            "{place} {mode} {roots}: {:?}",
            opened.err()
        );
    }
}
