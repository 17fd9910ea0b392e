//! A server that answers over TLS as a Kubernetes API server answers token reviews, and as an OpenID
//! Connect provider publishes its keys. Ends when it is dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

/// What the catalog shows for itself.
pub(crate) const OWN_TOKEN: &str = "catalogs-own-token";

/// How the server answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The status of a TokenReview.
    Review(Value),
    /// Nothing, for ever.
    Silence,
}

#[derive(Debug)]
struct State {
    answer: Mutex<Answer>,
    /// Document by path.
    pages: Mutex<Vec<(String, String)>>,
    reviewed: Mutex<Vec<Value>>,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    ended: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Cluster {
    /// Serves with a certificate and its key.
    pub(crate) fn start((certificate, key): (&Path, &Path)) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).unwrap();
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let state = Arc::new(State {
            answer: Mutex::new(Answer::Silence),
            pages: Mutex::default(),
            reviewed: Mutex::default(),
        });
        let ended = CancellationToken::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            Arc::clone(&state),
        );
        let end = ended.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(end.run_until_cancelled(serving));
        });
        Self {
            address,
            state,
            ended,
            thread: Some(thread),
        }
    }

    /// Nothing listens at its address from now on.
    pub(crate) fn stop(&mut self) {
        self.ended.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.state.answer.lock().unwrap() = answer;
    }

    pub(crate) fn publish(&self, path: &str, document: &Value) {
        let page = (path.to_owned(), document.to_string());
        self.state.pages.lock().unwrap().push(page);
    }

    /// What was asked in token reviews.
    pub(crate) fn reviewed(&self) -> Vec<Value> {
        self.state.reviewed.lock().unwrap().clone()
    }
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(one(stream, acceptor.clone(), Arc::clone(&state)));
    }
}

/// One request; a client that leaves early is no fault.
async fn one(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) -> Option<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await.ok()?);
    let (mut request, mut length, mut bearer) = (String::new(), 0, String::new());
    stream.read_line(&mut request).await.ok()?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => bearer = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let Some((status, body)) = answer(&state, &request, &bearer, &body) else {
        // The connection stays open, and nothing comes.
        return std::future::pending().await;
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

fn answer(state: &State, request: &str, bearer: &str, body: &[u8]) -> Option<(u16, String)> {
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
    if (method, path) != ("POST", "/apis/authentication.k8s.io/v1/tokenreviews") {
        let pages = state.pages.lock().unwrap();
        let found = pages.iter().rev().find(|(known, _)| known == path);
        return Some(found.map_or((404, String::new()), |(_, page)| (200, page.clone())));
    }
    if bearer != format!("Bearer {OWN_TOKEN}") {
        let failure = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": "Unauthorized", "code": 401});
        return Some((401, failure.to_string()));
    }
    let mut review: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(review["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(review["kind"], "TokenReview");
    state.reviewed.lock().unwrap().push(review["spec"].clone());
    let Answer::Review(status) = state.answer.lock().unwrap().clone() else {
        return None;
    };
    review["metadata"] = json!({"creationTimestamp": null});
    review["status"] = status;
    Some((201, review.to_string()))
}
