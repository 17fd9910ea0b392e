//! The shared store: PostgreSQL (or what speaks its protocol and its procedural language), for several
//! replicas of the catalog at once.
//!
//! ```text
//! terrace_kv       key bytea primary key, value bytea, revision bigint
//! terrace_kv_head  one row: the greatest revision, the format
//! terrace_kv_txn   a function: one transaction of the trait, in one statement
//! ```
//!
//! The function takes the lock of the head's row first. So writing transactions follow one another: a
//! compare sees everything before it, revisions grow in the order of the commits, and whoever has read
//! an appended key has seen all before it. The lock is held inside one statement and its commit, never
//! across a round trip. Notifications only wake: a watch also wakes by itself every [`WAKE`], after a
//! lost connection at once, and so misses nothing for ever.
//!
//! A small pool of connections ([`PostgresConfig::connections`]); every call has a deadline. A
//! connection that failed is thrown away. A transaction whose answer got lost is `Unknown`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::hub::{Hub, Watch};
use super::pool::{Pool, failure};
use super::{
    Compare, DumpPage, KeyRange, Kv, KvError, LIMITS, Limits, MAX_PAGE, Op, Txn, TxnOutcome,
    Versioned, check_key, check_keys,
};

/// How often a watch wakes by itself: the longest that a lost notification costs.
const WAKE: Duration = Duration::from_secs(5);
/// The layout above.
const FORMAT: i32 = 1;
/// Held while the tables are made: "terrace" as a number.
const SCHEMA_LOCK: i64 = 0x0074_6572_7261_6365;

const SCHEMA: &str = r"
create table if not exists terrace_kv (
    key bytea primary key, value bytea not null, revision bigint not null);
create table if not exists terrace_kv_head (
    one boolean primary key check (one), revision bigint not null, format integer not null);
insert into terrace_kv_head values (true, 0, 1) on conflict do nothing;
create or replace function terrace_kv_txn(
    compare_kinds int[], compare_keys bytea[], compare_revisions bigint[], compare_values bytea[],
    op_kinds int[], op_keys bytea[], op_values bytea[], above bigint,
    out committed bigint, out failed int
) language plpgsql as $$
declare
    found record;
begin
    select h.revision into committed from terrace_kv_head h for update;
    for i in 1 .. coalesce(array_length(compare_kinds, 1), 0) loop
        select k.value, k.revision into found from terrace_kv k where k.key = compare_keys[i];
        if not (case compare_kinds[i]
            when 0 then found.revision is null
            when 1 then found.revision is not distinct from compare_revisions[i]
            else found.value is not distinct from compare_values[i] end)
        then
            committed := null;
            failed := i - 1;
            return;
        end if;
    end loop;
    committed := greatest(committed, above) + 1;
    for i in 1 .. coalesce(array_length(op_kinds, 1), 0) loop
        if op_kinds[i] = 1 then
            delete from terrace_kv k where k.key = op_keys[i];
        else
            insert into terrace_kv values (
                case when op_kinds[i] = 0 then op_keys[i] else op_keys[i] || int8send(committed) end,
                op_values[i], committed)
            on conflict (key) do update set value = excluded.value, revision = excluded.revision;
        end if;
    end loop;
    update terrace_kv_head set revision = committed;
    perform pg_notify('terrace_kv', '');
end $$;
";

const TXN: &str = "select committed, failed from terrace_kv_txn($1, $2, $3, $4, $5, $6, $7, $8)";
const GET: &str = "select key, value, revision from terrace_kv where key = any($1)";
const SCAN: &str = "select key, value, revision from terrace_kv \
                    where key >= $1 and ($2::bytea is null or key < $2) order by key limit $3";

/// How the database is reached.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgresql://user:password@host/database?...` or `host=... user=...`; a secret. `sslmode` and
    /// `sslrootcert` mean what they mean to libpq.
    pub url: String,
    /// Most connections of this process, besides one that listens.
    pub connections: usize,
    /// How long one call may take, waiting for a connection included.
    pub deadline: Duration,
}

impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PostgresConfig({} connections, {:?})",
            self.connections, self.deadline
        )
    }
}

impl PostgresConfig {
    /// 8 connections and 10 seconds.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            connections: 8,
            deadline: Duration::from_secs(10),
        }
    }
}

/// See the module text. Dropping it ends its tasks and connections.
#[derive(Debug)]
pub struct PostgresKv {
    pool: Arc<Pool>,
    hub: Arc<Hub>,
    /// Ends the listening task and the dumps that still run.
    _tasks: DropGuard,
    closing: CancellationToken,
}

impl PostgresKv {
    /// Connects, and makes the tables if they are not there. Errors: `Unavailable`, `Corrupt`.
    pub async fn open(config: PostgresConfig) -> Result<Self, KvError> {
        let pool = Arc::new(Pool::new(config)?);
        let connection = pool.connect().await?;
        // One transaction, and a lock in it: replicas that start at once take turns.
        let script =
            format!("begin; select pg_advisory_xact_lock({SCHEMA_LOCK}); {SCHEMA} commit;");
        let made = connection.client().batch_execute(&script).await;
        made.map_err(|error| failure(&error, false))?;
        drop(connection);
        let rows = pool.read("select format from terrace_kv_head", &[]).await?;
        let format = rows.first().map(|row| row.try_get::<_, i32>(0));
        match format {
            Some(Ok(FORMAT)) => {}
            other => return Err(KvError::Corrupt(format!("its format is {other:?}"))),
        }
        let hub = Arc::new(Hub::default());
        let closing = CancellationToken::new();
        // Owned by the guard: the task ends when the store is dropped.
        tokio::spawn(listen(Arc::clone(&pool), Arc::clone(&hub), closing.clone()));
        Ok(Self {
            pool,
            hub,
            _tasks: closing.clone().drop_guard(),
            closing,
        })
    }
}

impl Drop for PostgresKv {
    fn drop(&mut self) {
        self.hub.close();
    }
}

#[async_trait]
impl Kv for PostgresKv {
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, KvError> {
        check_keys(keys)?;
        let asked: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let rows = self.pool.read(GET, &[&asked]).await?;
        let found = rows.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        let mut found: std::collections::HashMap<Bytes, Versioned> = found.into_iter().collect();
        // A key may be asked for twice, so nothing is taken out before its last place.
        let mut last = std::collections::HashMap::new();
        for (at, key) in keys.iter().enumerate() {
            last.insert(key, at);
        }
        let answer = keys.iter().enumerate().map(|(at, key)| {
            if last.get(key) == Some(&at) {
                found.remove(key)
            } else {
                found.get(key).cloned()
            }
        });
        Ok(answer.collect())
    }

    async fn scan(
        &self,
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, KvError> {
        if limit > MAX_PAGE {
            return Err(KvError::limit("keys of a page", limit, MAX_PAGE));
        }
        let (start, end) = (range.start().as_ref(), range.end().map(AsRef::as_ref));
        let end: Option<&[u8]> = end;
        let limit = limit as i64;
        let rows = self.pool.read(SCAN, &[&start, &end, &limit]).await?;
        rows.iter().map(decode).collect()
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, KvError> {
        txn.check()?;
        let parts = Parts::of(&txn);
        let rows = self.pool.change(TXN, &parts.parameters()).await?;
        let nonsense = || KvError::Corrupt("its function answered nonsense".into());
        let row = rows.first().ok_or_else(nonsense)?;
        let damaged = |error: tokio_postgres::Error| failure(&error, false);
        let committed: Option<i64> = row.try_get(0).map_err(damaged)?;
        let failed: Option<i32> = row.try_get(1).map_err(damaged)?;
        match (committed, failed) {
            (Some(revision), None) => Ok(TxnOutcome::Committed {
                revision: revision as u64,
            }),
            (None, Some(failed)) => Ok(TxnOutcome::Conflict {
                failed: failed as usize,
            }),
            _ => Err(nonsense()),
        }
    }

    async fn watch(&self, key: &[u8]) -> Result<Watch, KvError> {
        check_key(key)?;
        self.hub.watch(key)
    }

    fn dump(&self) -> BoxStream<'static, Result<DumpPage, KvError>> {
        let (pages, received) = mpsc::channel(2);
        let pool = Arc::clone(&self.pool);
        let closing = self.closing.clone();
        // Ends with its stream, at the latest when the store is dropped.
        tokio::spawn(async move {
            let dumped = closing.run_until_cancelled(dump_all(&pool, &pages)).await;
            if let Some(Err(error)) = dumped {
                // An error here means that nobody listens any more.
                let _ = pages.send(Err(error)).await;
            }
        });
        crate::stream::received(received).boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

/// A transaction as the arrays that the function takes.
struct Parts<'a> {
    compare_kinds: Vec<i32>,
    compare_keys: Vec<&'a [u8]>,
    compare_revisions: Vec<i64>,
    compare_values: Vec<&'a [u8]>,
    op_kinds: Vec<i32>,
    op_keys: Vec<&'a [u8]>,
    op_values: Vec<&'a [u8]>,
    floor: i64,
}

impl<'a> Parts<'a> {
    fn of(txn: &'a Txn) -> Self {
        let mut parts = Self {
            compare_kinds: Vec::new(),
            compare_keys: Vec::new(),
            compare_revisions: Vec::new(),
            compare_values: Vec::new(),
            op_kinds: Vec::new(),
            op_keys: Vec::new(),
            op_values: Vec::new(),
            floor: i64::try_from(txn.floor).unwrap_or(i64::MAX - 1),
        };
        for compare in &txn.compares {
            let (kind, revision, value): (_, _, &[u8]) = match compare {
                Compare::Absent(_) => (0, 0, &[]),
                // No revision is that large, so nothing has it.
                Compare::Revision(_, revision) => {
                    (1, i64::try_from(*revision).unwrap_or(i64::MAX), &[])
                }
                Compare::Value(_, value) => (2, 0, value),
            };
            parts.compare_kinds.push(kind);
            parts.compare_keys.push(compare.key());
            parts.compare_revisions.push(revision);
            parts.compare_values.push(value);
        }
        for op in &txn.ops {
            let (kind, value): (_, &[u8]) = match op {
                Op::Put(_, value) => (0, value),
                Op::Delete(_) => (1, &[]),
                Op::Append(_, value) => (2, value),
            };
            parts.op_kinds.push(kind);
            parts.op_keys.push(op.key());
            parts.op_values.push(value);
        }
        parts
    }

    fn parameters(&self) -> [&(dyn ToSql + std::marker::Sync); 8] {
        [
            &self.compare_kinds,
            &self.compare_keys,
            &self.compare_revisions,
            &self.compare_values,
            &self.op_kinds,
            &self.op_keys,
            &self.op_values,
            &self.floor,
        ]
    }
}

fn decode(row: &Row) -> Result<(Bytes, Versioned), KvError> {
    let damaged = |error: tokio_postgres::Error| KvError::Corrupt(error.to_string());
    let key: &[u8] = row.try_get(0).map_err(damaged)?;
    let value: &[u8] = row.try_get(1).map_err(damaged)?;
    let revision: i64 = row.try_get(2).map_err(damaged)?;
    let versioned = Versioned {
        value: Bytes::copy_from_slice(value),
        revision: revision as u64,
    };
    Ok((Bytes::copy_from_slice(key), versioned))
}

/// Wakes the watches: at each notification, every [`WAKE`], and when a connection was made anew.
async fn listen(pool: Arc<Pool>, hub: Arc<Hub>, closing: CancellationToken) {
    let forever = async {
        loop {
            match pool.connect_listener("terrace_kv").await {
                Ok(mut listener) => {
                    hub.wake_all();
                    let lost = loop {
                        let heard = tokio::time::timeout(WAKE, listener.notified()).await;
                        hub.wake_all();
                        if let Ok(Err(error)) = heard {
                            break error;
                        }
                    };
                    tracing::warn!(error = %lost, "the catalog's database is not heard");
                }
                Err(error) => {
                    tracing::warn!(%error, "the catalog's database is not heard");
                    hub.wake_all();
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    closing.run_until_cancelled(forever).await;
}

/// Sends everything as one transaction sees it, page by page.
async fn dump_all(
    pool: &Pool,
    pages: &mpsc::Sender<Result<DumpPage, KvError>>,
) -> Result<(), KvError> {
    let connection = pool.connect().await?;
    let client = connection.client();
    let failed = |error: tokio_postgres::Error| failure(&error, false);
    let begin = "begin isolation level repeatable read read only";
    client.batch_execute(begin).await.map_err(failed)?;
    let statement = client.prepare(SCAN).await.map_err(failed)?;
    let limit = (MAX_PAGE / 4) as i64;
    let mut start: Vec<u8> = Vec::new();
    loop {
        let none: Option<&[u8]> = None;
        let rows = client.query(&statement, &[&start, &none, &limit]).await;
        let page: DumpPage = rows
            .map_err(failed)?
            .iter()
            .map(decode)
            .collect::<Result<_, _>>()?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        start = [last.as_ref(), &[0]].concat();
        if pages.send(Ok(page)).await.is_err() {
            return Ok(());
        }
    }
}
