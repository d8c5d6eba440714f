//! What others ask the agent by HTTP: metrics, and whether it is well.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::Mutex, task};

use crate::{health::Health, metrics::Metrics};

/// What `/metrics` is written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the answers are made from.
#[derive(Clone, Debug)]
struct Sources {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// However many ask, one reads at a time.
    reading: Arc<Mutex<()>>,
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the process ends.
///
/// # Errors
///
/// The address cannot be listened on.
pub(crate) async fn serve(
    listen: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
) -> Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("--listen {listen}: bind"))?;
    axum::serve(listener, router(health, metrics))
        .await
        .with_context(|| format!("--listen {listen}: serve"))
}

fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(tell_metrics))
        .route("/healthz", get(tell_alive))
        .route("/readyz", get(tell_ready))
        .with_state(Sources {
            health,
            metrics,
            reading: Arc::default(),
        })
}

async fn tell_metrics(State(sources): State<Sources>) -> Response {
    let reading = sources.reading.lock_owned().await;
    // Not on this thread, which is the loop's: it reads maps and directories.
    let encoded = task::spawn_blocking(move || {
        let _reading = reading;
        sources.metrics.encode()
    });
    match encoded.await.context("metrics: read").flatten() {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!("{error:#}");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response()
        }
    }
}

async fn tell_alive(State(sources): State<Sources>) -> Response {
    answer(sources.health.alive())
}

async fn tell_ready(State(sources): State<Sources>) -> Response {
    answer(sources.health.ready())
}

fn answer(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    /// Asks a server of these sources, and returns the head and the body of its answer.
    async fn ask(path: &str, health: &Arc<Health>) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router(Arc::clone(health), Arc::new(Metrics::new()));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        server.abort();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn metrics_are_open_metrics_and_say_so() {
        let (head, body) = ask("/metrics", &Arc::new(Health::new())).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(
            head.contains(&format!("content-type: {OPEN_METRICS}")),
            "{head}"
        );
        assert!(body.contains("beeline_build_info{version=\""), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    }

    #[tokio::test]
    async fn a_node_is_ready_when_the_agent_says_so_and_else_the_reason_is_told() {
        let health = Arc::new(Health::new());
        let (head, body) = ask("/readyz", &health).await;
        assert!(head.starts_with("http/1.1 503 "), "{head}");
        assert_eq!(body, "starting\n");
        health.set_ready(Ok(()));
        let (head, body) = ask("/readyz", &health).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert_eq!(body, "ok\n");
    }

    #[tokio::test]
    async fn an_agent_is_alive_before_it_is_ready() {
        let (head, body) = ask("/healthz", &Arc::new(Health::new())).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert_eq!(body, "ok\n");
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        let (head, _) = ask("/", &Arc::new(Health::new())).await;
        assert!(head.starts_with("http/1.1 404 "), "{head}");
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new());
        let error = serve(address, Arc::new(Health::new()), metrics).await;
        let error = format!("{:#}", error.unwrap_err());
        let start = format!("--listen {address}: bind: ");
        assert!(error.starts_with(&start), "{error}");
    }
}
