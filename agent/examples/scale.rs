//! Fills an API server with nodes, and measures what an agent takes to follow them.
//!
//! Only the objects are there. Runs in the network namespace of a node whose objects they stand beside; `cargo xtask bench
//! scale` makes all of that.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

/// So many requests are under way at once.
const AT_ONCE: usize = 16;

/// Images that a node tells of, as many as kubelet does: most of a node's size.
const IMAGES: usize = 50;

const LISTEN: &str = "127.0.0.1:19474";

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures an agent in a large cluster.
#[derive(Parser)]
struct Options {
    /// How to reach the API server
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The agent
    #[arg(long)]
    agent: PathBuf,
    /// The directory of the plugin
    #[arg(long)]
    bin_dir: PathBuf,
    /// The template of the network's configuration
    #[arg(long)]
    template: PathBuf,
    /// The node to be
    #[arg(long)]
    node_name: String,
    /// How many other nodes there are
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 5000])]
    nodes: Vec<usize>,
    /// How many nodes change a second
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// For how long they do, in seconds
    #[arg(long, default_value_t = 30)]
    duration: u64,
    /// Where to write the results
    #[arg(long)]
    output: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let api: Api<Node> = Api::all(Client::try_from(config)?);
    let mut results = Vec::new();
    let mut filled = 0;
    for &nodes in &options.nodes {
        let began = Instant::now();
        fill(&api, filled..nodes).await?;
        println!(
            "{} nodes more: {:.1} s to create",
            nodes - filled,
            began.elapsed().as_secs_f64()
        );
        filled = nodes;
        let result = measure(&api, &options, nodes).await?;
        println!("{}", said(&result));
        results.push(result);
    }
    fs::write(&options.output, serde_json::to_vec_pretty(&results)?)
        .with_context(|| format!("{}: write", options.output.display()))?;
    empty(&api, filled).await
}

/// A result in a line.
fn said(result: &Value) -> String {
    let number = |key: &str| result[key].as_f64().unwrap_or(f64::NAN);
    format!(
        "{} nodes: ready {:.1} s after its start, {:.1} s after another, {:.1} s of CPU; {:.1} MB resident, {:.1} at most; \
         {} changes a second take {:.1} % of a CPU, then {:.1} MB; one is in the routes after {:.2} s",
        result["nodes"],
        number("start_to_converged_seconds"),
        number("restart_to_converged_seconds"),
        number("start_cpu_seconds"),
        number("resident_kb") / 1024.0,
        number("peak_kb") / 1024.0,
        result["changes_per_second"],
        number("cpu_percent_at_that_rate"),
        number("resident_after_kb") / 1024.0,
        number("change_to_route_seconds"),
    )
}

async fn fill(api: &Api<Node>, which: std::ops::Range<usize>) -> Result<()> {
    let create = |n: usize| async move {
        let node: Node = serde_json::from_value(node(n))?;
        api.create(&PostParams::default(), &node).await?;
        Ok::<_, anyhow::Error>(())
    };
    stream::iter(which)
        .map(create)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn empty(api: &Api<Node>, count: usize) -> Result<()> {
    let delete = |n: usize| async move {
        api.delete(&name(n), &DeleteParams::default()).await?;
        Ok::<_, anyhow::Error>(())
    };
    stream::iter(0..count)
        .map(delete)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

fn name(n: usize) -> String {
    format!("scale-{n}")
}

/// A node that is a neighbour of all others: in 172.16/16, with pods in 100.64/10.
fn node(n: usize) -> Value {
    let images: Vec<Value> = (0..IMAGES)
        .map(|image| {
            let digest = format!("{image:064x}");
            json!({"sizeBytes": 1_000_000, "names": [
                format!("registry.example/team/application-{image}@sha256:{digest}"),
                format!("registry.example/team/application-{image}:v1.2.{image}"),
            ]})
        })
        .collect();
    let pods = format!("100.{}.{}.0/24", 64 + n / 256, n % 256);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name(n), "labels": {"kubernetes.io/hostname": name(n), "kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": pods, "podCIDRs": [pods]},
        "status": {"addresses": [{"type": "InternalIP", "address": address(n, 0)}], "images": images},
    })
}

/// Each node has four that it can change between: 172.16/14 must be on a link.
fn address(n: usize, which: usize) -> String {
    format!("172.{}.{}.{}", 16 + which, n / 250, 1 + n % 250)
}

/// An agent that ends with this value.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn start(options: &Options) -> Result<(Self, tempfile::TempDir)> {
        let conf = tempfile::tempdir()?;
        let child = Command::new(&options.agent)
            .args([
                "kubernetes",
                "--listen",
                LISTEN,
                "--node-name",
                &options.node_name,
            ])
            .arg("--kubeconfig")
            .arg(&options.kubeconfig)
            .arg("--template")
            .arg(&options.template)
            .arg("--conf-dir")
            .arg(conf.path())
            .arg("--bin-dir")
            .arg(&options.bin_dir)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{}: run", options.agent.display()))?;
        Ok((Self(child), conf))
    }

    async fn until_ready(&mut self) -> Result<Duration> {
        let began = Instant::now();
        loop {
            ensure!(self.0.try_wait()?.is_none(), "the agent has ended");
            ensure!(
                began.elapsed() < PATIENCE,
                "the agent is not ready: {}",
                get("/readyz")?
            );
            if get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resident memory now and at most, in kB.
    fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next());
            number
                .and_then(|number| number.parse().ok())
                .with_context(|| key.to_owned())
        };
        Ok((value("VmRSS:")?, value("VmHWM:")?))
    }

    /// CPU time so far, its children's that have ended included, in seconds.
    fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields = stat.rsplit(") ").next().context("stat")?.split(' ');
        // utime, stime, cutime, cstime: fields 14 to 17 of proc_pid_stat(5), in ticks of 10 ms.
        let ticks: u64 = fields
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(ticks as f64 / 100.0)
    }
}

fn get(path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(LISTEN)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn routes() -> Result<usize> {
    let listed = Command::new("ip")
        .args(["route", "show", "proto", "190"])
        .output()?;
    ensure!(listed.status.success(), "ip route: {}", listed.status);
    Ok(listed.stdout.iter().filter(|byte| **byte == b'\n').count())
}

async fn measure(api: &Api<Node>, options: &Options, nodes: usize) -> Result<Value> {
    let (mut agent, conf) = Agent::start(options)?;
    let first = agent.until_ready().await?;
    let cpu_first = agent.cpu()?;
    let routes = routes()?;
    ensure!(routes >= nodes, "{routes} routes for {nodes} nodes");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (rss, peak) = agent.memory()?;
    let idle = agent.cpu()?;
    change(api, options, nodes).await?;
    let busy = agent.cpu()? - idle;
    let (rss_after, peak_after) = agent.memory()?;
    let lag = lag(api, nodes).await?;
    drop(agent);
    // Once more, on a node that has it all.
    let (mut again, _conf) = Agent::start(options)?;
    let again = again.until_ready().await?;
    drop(conf);
    Ok(json!({
        "nodes": nodes,
        "start_to_converged_seconds": first.as_secs_f64(),
        "start_cpu_seconds": cpu_first,
        "restart_to_converged_seconds": again.as_secs_f64(),
        "resident_kb": rss, "peak_kb": peak,
        "changes_per_second": options.rate,
        "cpu_percent_at_that_rate": 100.0 * busy / options.duration as f64,
        "resident_after_kb": rss_after, "peak_after_kb": peak_after,
        "change_to_route_seconds": lag,
    }))
}

/// Changes nodes, one after another: of three changes one gives a node another address, one deletes another node, and one
/// makes that anew.
async fn change(api: &Api<Node>, options: &Options, nodes: usize) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / options.rate);
    let changes = options.duration as usize * options.rate as usize;
    for n in 0..changes {
        tick.tick().await;
        let (moves, comes) = (n / 3 % nodes, (n / 3 + nodes / 2) % nodes);
        match n % 3 {
            0 => move_to(api, moves, 1 + n / 3 / nodes % 2).await?,
            1 => drop(api.delete(&name(comes), &DeleteParams::default()).await?),
            _ => fill(api, comes..comes + 1).await?,
        }
    }
    Ok(())
}

async fn move_to(api: &Api<Node>, n: usize, which: usize) -> Result<()> {
    let addresses = json!([{"type": "InternalIP", "address": address(n, which)}]);
    let patch = Patch::Merge(json!({"status": {"addresses": addresses}}));
    api.patch_status(&name(n), &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// How long a single change takes to reach the kernel's routes, in seconds: the median of some.
async fn lag(api: &Api<Node>, nodes: usize) -> Result<f64> {
    const SAMPLES: usize = 9;
    let mut lags = Vec::new();
    for n in nodes.saturating_sub(SAMPLES)..nodes {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let began = Instant::now();
        move_to(api, n, 3).await?;
        while !leads_to(n, &address(n, 3))? {
            if began.elapsed() > PATIENCE {
                bail!("node {n}: its route has not followed");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lags.push(began.elapsed().as_secs_f64());
    }
    lags.sort_by(f64::total_cmp);
    lags.get(lags.len() / 2).copied().context("no samples")
}

fn leads_to(n: usize, gateway: &str) -> Result<bool> {
    let pod = format!("100.{}.{}.9", 64 + n / 256, n % 256);
    let route = Command::new("ip").args(["route", "get", &pod]).output()?;
    Ok(String::from_utf8_lossy(&route.stdout).contains(&format!("via {gateway} ")))
}
