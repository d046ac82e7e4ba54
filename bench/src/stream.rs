//! `midge-lab stream`: large bodies, servers side by side, in rounds that alternate.
//!
//! One client, one connection, one body after the other. The figures are bytes per second as the client reads
//! them, and the server's CPU time for each MiB; the ratios are taken to nginx without `sendfile`, of the same
//! round, which copies a file's bytes as midge has to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use midge_bench::guests;
use midge_bench::measure::Spread;
use serde::Serialize;

use crate::cpus::Cpus;
use crate::servers::{NGINX_MISSING, Server, find_midge, find_other, free_address, serving};

/// A client that hears nothing for so long gives up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Bytes read and written at once.
const PIECE_BYTES: usize = 256 << 10;
const MIB: u64 = 1 << 20;

/// Options of `midge-lab stream`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Size of a body, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Rounds; servers alternate within a round.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The CPUs.
    #[command(flatten)]
    cpus: Cpus,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    body_bytes: u64,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    row: &'static str,
    mib_per_second: Spread,
    cpu_us_per_mib: Spread,
    /// From the request to the first bytes of its response.
    first_byte_us: Spread,
    /// Bytes per second over those of nginx without `sendfile`.
    rate_ratio: Option<Spread>,
    /// CPU time for each MiB over nginx's.
    cpu_ratio: Option<Spread>,
}

/// What a row asks of which server.
struct Lane {
    row: &'static str,
    server: usize,
    target: &'static str,
    /// The client sends the body too.
    is_sent: bool,
    rate: Vec<f64>,
    cpu: Vec<f64>,
    first_byte_us: Vec<f64>,
    rate_ratio: Vec<f64>,
    cpu_ratio: Vec<f64>,
}

/// Runs the comparison.
///
/// # Errors
/// If midge is missing, or a body does not come as it should.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.cpus.check()?;
    let bytes = arguments.mib * MIB;
    anyhow::ensure!((1..=1 << 20).contains(&arguments.mib), "a body has 1 MiB to 1 TiB");
    let files = tempfile::tempdir()?;
    write_file(&files.path().join("body"), bytes)?;
    let (servers, mut lanes, left_out) = start_all(arguments, files.path(), bytes)?;
    arguments.cpus.take_load()?;
    for round in 0..=arguments.rounds {
        let mut base = None;
        for lane in &mut lanes {
            let server = &servers[lane.server];
            let Measured { rate, cpu, first_byte_us } =
                measure(server, lane, bytes).with_context(|| format!("measuring {}", lane.row))?;
            if round == 0 {
                continue; // files into memory, slots made
            }
            lane.rate.push(rate);
            lane.cpu.push(cpu);
            lane.first_byte_us.push(first_byte_us);
            if lane.row == NGINX {
                base = Some((rate, cpu));
            }
            if let Some((base_rate, base_cpu)) = base {
                lane.rate_ratio.push(rate / base_rate);
                lane.cpu_ratio.push(cpu / base_cpu);
            }
        }
    }
    let ratio = |ratios: Vec<f64>| (!ratios.is_empty()).then(|| Spread::of(ratios));
    let rows = lanes.into_iter().map(|lane| Row {
        row: lane.row,
        mib_per_second: Spread::of(lane.rate),
        cpu_us_per_mib: Spread::of(lane.cpu),
        first_byte_us: Spread::of(lane.first_byte_us),
        rate_ratio: ratio(lane.rate_ratio),
        cpu_ratio: ratio(lane.cpu_ratio),
    });
    let rows = rows.collect();
    let report = Report { schema: "midge-lab/stream/1", body_bytes: bytes, rows, left_out };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

const NGINX: &str = "nginx, a file, sendfile off";

fn start_all(
    arguments: &Arguments,
    files: &Path,
    bytes: u64,
) -> Result<(Vec<Server>, Vec<Lane>, Vec<String>)> {
    let cpu = arguments.cpus.servers;
    let (mut servers, mut lanes, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    let mut lane = |row, server, target, is_sent| {
        let new = Vec::new;
        lanes.push(Lane {
            row,
            server,
            target,
            is_sent,
            rate: new(),
            cpu: new(),
            first_byte_us: new(),
            rate_ratio: new(),
            cpu_ratio: new(),
        });
    };
    match find_other("nginx") {
        Some(nginx) => {
            for (row, sendfile) in [(NGINX, "off"), ("nginx, a file, sendfile on", "on")] {
                lane(row, servers.len(), "/body", false);
                servers.push(start_nginx(&nginx, row, cpu, files, sendfile)?);
            }
        }
        None => left_out.push(NGINX_MISSING.into()),
    }
    let midge = find_midge()?;
    for (row, target, is_sent) in [
        ("midge, a file", "/files/body", false),
        ("midge, a function writes", "/write", false),
        ("midge, a function passes on", "/pass", true),
    ] {
        lane(row, servers.len(), target, is_sent);
    }
    servers.push(start_midge(&midge, cpu, files, bytes)?);
    Ok((servers, lanes, left_out))
}

fn start_midge(midge: &Path, cpu: usize, files: &Path, bytes: u64) -> Result<Server> {
    let (address, admin) = (free_address()?, free_address()?);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("write.wat"), guests::writer(bytes))?;
    std::fs::write(folder.path().join("pass.wat"), guests::passer(bytes))?;
    let function = |name: &str| {
        format!(
            "[[function]]\nname = \"{name}\"\nmodule = \"{name}.wat\"\nroute = \"/{name}\"\n\
             deadline = \"60s\"\nstream_body = \"{bytes} B\"\n"
        )
    };
    let text = format!(
        "{}{}[[static]]\nname = \"files\"\nfolder = \"{}\"\nroute = \"/files/*\"\n",
        function("write"),
        function("pass"),
        files.display()
    );
    let command = serving(midge, folder.path(), [address, admin], cpu, &text)?;
    Server::start("midge", address, "/", cpu, command, folder)
}

fn start_nginx(
    nginx: &Path,
    name: &'static str,
    cpu: usize,
    files: &Path,
    sendfile: &str,
) -> Result<Server> {
    let address = free_address()?;
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; sendfile {sendfile};\n\
         server {{ listen {address}; root {}; }} }}\n",
        files.display()
    );
    std::fs::write(&settings, text)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&settings);
    Server::start(name, address, "/", cpu, command, folder)
}

/// Writes a file of so many bytes, none of them a hole.
fn write_file(path: &Path, bytes: u64) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    let piece = vec![b'm'; usize::try_from(MIB).expect("64-bit targets alone")];
    for _ in 0..bytes / MIB {
        file.write_all(&piece).context("writing the file that is served")?;
    }
    Ok(())
}

struct Measured {
    /// MiB per second.
    rate: f64,
    /// Microseconds of the server's CPU for each MiB.
    cpu: f64,
    first_byte_us: f64,
}

fn measure(server: &Server, lane: &Lane, bytes: u64) -> Result<Measured> {
    let before = server.cpu_time()?;
    let began = Instant::now();
    let first_byte = exchange(server.address, lane.target, lane.is_sent, bytes)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = server.cpu_time()?.since(&before).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
    let mib = (bytes / MIB) as f64;
    let first_byte_us = first_byte.as_secs_f64() * 1e6;
    Ok(Measured { rate: mib / seconds, cpu: cpu * 1e6 / mib, first_byte_us })
}

/// Asks for a body; returns how long its first bytes took once there was a connection.
fn exchange(address: SocketAddr, target: &str, is_sent: bool, bytes: u64) -> Result<Duration> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let began = Instant::now();
    if !is_sent {
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
        return Ok(receive(&mut stream, bytes)? - began);
    }
    let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut sink = stream.try_clone()?;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let piece = vec![b'm'; PIECE_BYTES];
        let mut left = bytes;
        while left > 0 {
            let size = PIECE_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX));
            sink.write_all(&piece[..size])?;
            left -= size as u64;
        }
        Ok(())
    });
    let first = receive(&mut stream, bytes)?;
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(first - began)
}

/// Reads a response of so many bytes, all of them `m`; its last piece is looked at. Returns when the first bytes came.
fn receive(stream: &mut TcpStream, bytes: u64) -> Result<Instant> {
    let mut piece = vec![0; PIECE_BYTES];
    let (mut filled, mut first) = (0, None);
    let head_end = loop {
        let size = stream.read(&mut piece[filled..])?;
        anyhow::ensure!(size > 0, "the connection ended in a head");
        first.get_or_insert_with(Instant::now);
        filled += size;
        if let Some(end) = piece[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&piece[..head_end]).to_lowercase();
    anyhow::ensure!(head.starts_with("http/1.1 200 "), "it answered: {head}");
    let told = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    anyhow::ensure!(told == Some(&bytes.to_string()), "it told another length: {head}");
    let mut left = bytes - (filled - head_end) as u64;
    while left > 0 {
        let size = stream.read(&mut piece)?;
        anyhow::ensure!(size > 0, "the connection ended with {left} bytes left");
        left = left.checked_sub(size as u64).context("more came than was told")?;
        if left == 0 {
            anyhow::ensure!(piece[..size].iter().all(|byte| *byte == b'm'), "other bytes came");
        }
    }
    first.context("a head has bytes")
}

fn print_table(report: &Report) -> Result<()> {
    say!("bodies of {} MiB", report.body_bytes / MIB);
    say!(
        "{:<28} {:>7} {:>12} {:>11} {:>12} {:>7} {:>11} {:>6} {:>9}",
        "",
        "MiB/s",
        "low..high",
        "CPU us/MiB",
        "low..high",
        "rate x",
        "low..high",
        "CPU x",
        "first us"
    );
    let range = |spread: &Spread, digits: usize| {
        format!("{:.digits$}..{:.digits$}", spread.low, spread.high)
    };
    for row in &report.rows {
        let (rate, cpu) = (&row.mib_per_second, &row.cpu_us_per_mib);
        let dash = || "-".to_owned();
        let ratio = row.rate_ratio.as_ref();
        say!(
            "{:<28} {:>7.0} {:>12} {:>11.0} {:>12} {:>7} {:>11} {:>6} {:>9.0}",
            row.row,
            rate.median,
            range(rate, 0),
            cpu.median,
            range(cpu, 0),
            ratio.map_or_else(dash, |spread| format!("{:.2}", spread.median)),
            ratio.map_or_else(dash, |spread| range(spread, 2)),
            row.cpu_ratio.as_ref().map_or_else(dash, |spread| format!("{:.2}", spread.median)),
            row.first_byte_us.median,
        );
    }
    crate::print_left_out(&report.left_out)
}
