//! Connections to PostgreSQL: a few, shared, each call with a deadline.
//!
//! A permit for each connection that may be open; idle ones are kept. Lock order: the one lock is held
//! for a push or a pop only. A connection that failed, or whose call was dropped in the middle, is not
//! used again: its client is dropped, which ends the task that drives it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Error, Row, Socket, Statement};

use super::KvError;
use super::encrypt::{self, Encrypted, Tls};
use super::postgres::PostgresConfig;

/// Notifications that wait to be noticed; more are as good as one.
const NOTIFICATIONS: usize = 16;

/// The two halves of a new connection.
type Opened = (
    Client,
    tokio_postgres::Connection<Socket, Encrypted<Socket>>,
);

/// See the module text.
pub(super) struct Pool {
    config: PostgresConfig,
    parsed: Config,
    tls: Tls,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({:?})", self.config)
    }
}

/// An open connection and the task that drives it.
pub(super) struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    prepared: HashMap<&'static str, Statement>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a statement, which is parsed once for each connection.
    async fn query(
        &mut self,
        text: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let statement = match self.prepared.get(text) {
            Some(found) => found.clone(),
            None => {
                let statement = self.client.prepare(text).await?;
                self.prepared.insert(text, statement.clone());
                statement
            }
        };
        self.client.query(&statement, parameters).await
    }
}

/// A connection that hears notifications.
pub(super) struct Listener {
    _connection: Connection,
    heard: mpsc::Receiver<()>,
}

impl Listener {
    /// Returns at a notification; errors when the connection is lost.
    pub(super) async fn notified(&mut self) -> Result<(), KvError> {
        let lost = || KvError::Unavailable("the listening connection was lost".into());
        self.heard.recv().await.ok_or_else(lost)
    }
}

impl Pool {
    pub(super) fn new(config: PostgresConfig) -> Result<Self, KvError> {
        let address = encrypt::address(&config.url).map_err(KvError::Unavailable)?;
        let mut parsed: Config = address
            .rest
            .parse()
            .map_err(|_| KvError::Unavailable("its URL cannot be understood".into()))?;
        parsed.ssl_mode(address.mode);
        Ok(Self {
            tls: address.tls,
            permits: Semaphore::new(config.connections.max(1)),
            config,
            parsed,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Runs a statement that changes nothing; once more, on a new connection, if an idle one had been
    /// lost.
    pub(super) async fn read(
        &self,
        statement: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, KvError> {
        self.within("reading", false, async {
            let mut connection = self.take().await?;
            match connection.query(statement, parameters).await {
                Ok(rows) => {
                    self.give_back(connection);
                    return Ok(rows);
                }
                Err(error) if connection.client.is_closed() || cut(&error) => {
                    tracing::debug!(%error, "a connection to the catalog's database was lost");
                }
                Err(error) => return Err(failure(&error, false)),
            }
            let mut connection = self.connect().await?;
            let rows = connection.query(statement, parameters).await;
            let rows = rows.map_err(|error| failure(&error, false))?;
            self.give_back(connection);
            Ok(rows)
        })
        .await
    }

    /// Runs a statement that changes something: once, because a lost answer may have been a yes.
    pub(super) async fn change(
        &self,
        statement: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, KvError> {
        self.within("a change", true, async {
            let mut connection = self.take().await?;
            let rows = connection.query(statement, parameters).await;
            let rows = rows.map_err(|error| failure(&error, true))?;
            self.give_back(connection);
            Ok(rows)
        })
        .await
    }

    /// Holds a permit and the deadline around a call.
    async fn within<T>(
        &self,
        what: &'static str,
        changes: bool,
        call: impl Future<Output = Result<T, KvError>>,
    ) -> Result<T, KvError> {
        let deadline = self.config.deadline;
        let until = Instant::now() + deadline;
        let late = |what: &str| format!("{what} took more than {deadline:?}");
        let permit = timeout_at(until, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(KvError::Unavailable(late("waiting for a connection")));
        };
        match timeout_at(until, call).await {
            Ok(done) => done,
            Err(_) if changes => Err(KvError::Unknown(late(what))),
            Err(_) => Err(KvError::Unavailable(late(what))),
        }
    }

    async fn take(&self) -> Result<Connection, KvError> {
        loop {
            let idle = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.pop()
            };
            match idle {
                Some(connection) if connection.client.is_closed() => {}
                Some(connection) => return Ok(connection),
                None => return self.connect().await,
            }
        }
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(connection);
    }

    /// A new connection, outside the pool until it is given back.
    pub(super) async fn connect(&self) -> Result<Connection, KvError> {
        let (client, connection) = self.open().await?;
        let driver = tokio::spawn(async move {
            // Its end is seen by the client.
            let _ = connection.await;
        });
        self.prepare(Connection {
            client,
            driver,
            prepared: HashMap::new(),
        })
        .await
    }

    /// A new connection that hears a channel.
    pub(super) async fn connect_listener(&self, channel: &str) -> Result<Listener, KvError> {
        let (client, mut connection) = self.open().await?;
        let (sender, heard) = mpsc::channel(NOTIFICATIONS);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if matches!(message, AsyncMessage::Notification(_)) {
                    // Full: it will be woken anyway.
                    let _ = sender.try_send(());
                }
            }
        });
        let connection = Connection {
            client,
            driver,
            prepared: HashMap::new(),
        };
        let connection = self.prepare(connection).await?;
        let listen = format!("listen {channel}");
        self.bounded(connection.client.batch_execute(&listen))
            .await?;
        Ok(Listener {
            _connection: connection,
            heard,
        })
    }

    async fn open(&self) -> Result<Opened, KvError> {
        self.bounded(self.parsed.connect(self.tls.clone())).await
    }

    /// What the code relies on, whatever the server's own defaults are.
    async fn prepare(&self, connection: Connection) -> Result<Connection, KvError> {
        let millis = self.config.deadline.as_millis();
        let settings = format!(
            "set default_transaction_isolation = 'read committed'; set synchronous_commit = on; \
             set statement_timeout = {millis}; set lock_timeout = {millis}; \
             set idle_in_transaction_session_timeout = {}",
            millis * 6
        );
        self.bounded(connection.client.batch_execute(&settings))
            .await?;
        Ok(connection)
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, KvError> {
        let done = tokio::time::timeout(self.config.deadline, call).await;
        let late = |_| KvError::Unavailable("connecting takes too long".into());
        done.map_err(late)?.map_err(|error| failure(&error, false))
    }
}

/// Whether the server ended the connection, and will take a new one.
fn cut(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN)
    )
}

/// What a failure means. What the server itself refused did not happen; anything else that was to
/// change something may have.
pub(super) fn failure(error: &Error, changes: bool) -> KvError {
    let Some(refused) = error.as_db_error() else {
        let text = with_sources(error);
        return if changes {
            KvError::Unknown(text)
        } else {
            KvError::Unavailable(text)
        };
    };
    let text = format!("{} ({})", refused.message(), refused.code().code());
    match *refused.code() {
        SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => KvError::Corrupt(text),
        SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN | SqlState::TRANSACTION_RESOLUTION_UNKNOWN => {
            KvError::Unknown(text)
        }
        _ => KvError::Unavailable(text),
    }
}

/// The error and what it was caused by, in one line.
fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
