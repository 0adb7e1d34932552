//! Directs a run: connect, load, warm up, measure, add up.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::{BenchArgs, OutputFormat};
use super::keys::KeyChooser;
use super::measure::Measurements;
use super::processes::cpu_micros;
use super::report::{self, BenchReport, LoadReport, ServerCpu};
use super::schedule::Plan;
use super::worker::{Answer, Order, Worker};
use crate::ambient;
use crate::client::resp::ClientError;
use crate::types::Moment;

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(200);

/// A run that came to no report. Servers may hold what was written until then.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The settings cannot be meant; nothing was sent.
    #[error("{}", problems.join("; "))]
    Settings {
        /// What is wrong with them.
        problems: Vec<String>,
    },
    /// A server cannot be reached or refuses the connection.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A process of `--server-pids` cannot be looked at; nothing was sent.
    #[error("cannot read the CPU time of process {pid}: {source}")]
    Process {
        /// Which one.
        pid: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The keys could not all be written.
    #[error("loading failed for {failed} of {keys} keys: {errors:?}")]
    Load {
        /// How many writes failed.
        failed: u64,
        /// How many there should have been.
        keys: u64,
        /// How often each error came.
        errors: BTreeMap<String, u64>,
    },
    /// This machine refused a thread or a timer.
    #[error("cannot start the generator: {0}")]
    System(std::io::Error),
}

/// Runs the load that `args` describes and reports what came of it. Blocks; call it
/// outside of any asynchronous runtime.
///
/// # Errors
/// There is no report. Operations that fail are no error: the report counts them.
pub fn run(args: &BenchArgs) -> Result<BenchReport, BenchError> {
    let problems = args.problems();
    if !problems.is_empty() {
        return Err(BenchError::Settings { problems });
    }
    let cpu = CpuTimes::of(&args.server_pids)?;
    let seed = args.seed.unwrap_or_else(|| u64::from_le_bytes(ambient::seed()));
    let mut crew = Crew::hire(args, seed)?;
    let loaded = if args.load { Some(crew.load(args)?) } else { None };

    let plan = Plan {
        from: ambient::moment(),
        warmup: args.warmup,
        time: args.requests.is_none().then_some(args.time),
        requests: args.requests.map(Into::into),
        rate: args.rate.map(Into::into),
    };
    crew.order(&Order::Run(plan));
    let bar = progress_bar(args, if plan.requests.is_some() { "measuring" } else { "running" });
    let mut before = cpu.clone();
    let mut recording = false;
    let mut last = (plan.from, 0);
    let measured = crew.answers(|progress| {
        let now = ambient::moment();
        if !recording && now >= plan.record_from() {
            // At most a fraction of a millisecond late: the wait below ends at this moment.
            before = CpuTimes::of(&args.server_pids).unwrap_or_else(|_| before.clone());
            recording = true;
        }
        match plan.requests {
            Some(requests) => {
                bar.set_length(requests);
                bar.set_position(progress.min(requests));
            }
            None => {
                bar.set_length(millis(plan.warmup + args.time));
                bar.set_position(millis(now.since(plan.from)));
            }
        }
        if now.since(last.0) >= TICK {
            let rate = (progress - last.1) as f64 / now.since(last.0).as_secs_f64();
            bar.set_message(format!("{rate:.0}/s"));
            last = (now, progress);
        }
        if recording { TICK } else { plan.record_from().since(now).clamp(Duration::from_micros(1), TICK) }
    })?;
    let after = CpuTimes::of(&args.server_pids).ok();
    bar.finish_and_clear();

    let end = plan.deadline().map_or(measured.last, |deadline| measured.last.max(deadline));
    let seconds = end.since(plan.record_from()).as_secs_f64();
    Ok(report::build(args, seed, &measured, seconds, loaded, &used(&before, after.as_ref(), &args.server_pids)))
}

/// CPU times at one moment.
#[derive(Clone, Debug)]
struct CpuTimes {
    own: u64,
    servers: Vec<u64>,
}

impl CpuTimes {
    fn of(pids: &[u32]) -> Result<CpuTimes, BenchError> {
        let read = |pid: String| cpu_micros(&pid).map_err(|source| BenchError::Process { pid, source });
        let servers = pids.iter().map(|pid| read(pid.to_string())).collect::<Result<_, _>>()?;
        // Without /proc the generator's own time is unknown, which is no reason to fail.
        Ok(CpuTimes { own: cpu_micros("self").unwrap_or(0), servers })
    }
}

/// The CPU time of the measured part: the generator's, and the servers' if all of them lived on.
fn used(before: &CpuTimes, after: Option<&CpuTimes>, pids: &[u32]) -> (u64, Option<ServerCpu>) {
    let own = after.map_or_else(|| cpu_micros("self").unwrap_or(0), |after| after.own).saturating_sub(before.own);
    let servers = after.filter(|_| !pids.is_empty()).map(|after| {
        let spent = before.servers.iter().zip(&after.servers).map(|(before, after)| after.saturating_sub(*before));
        ServerCpu::new(pids.iter().copied().zip(spent))
    });
    (own, servers)
}

/// The threads of the generator.
struct Crew {
    orders: Vec<Sender<Order>>,
    answers: Receiver<Answer>,
    progress: Arc<AtomicU64>,
}

impl Crew {
    fn hire(args: &BenchArgs, seed: u64) -> Result<Crew, BenchError> {
        let (answer, answers) = channel();
        let progress = Arc::new(AtomicU64::new(0));
        let shared = Arc::new(args.clone());
        let chooser = KeyChooser::new(args.effective_distribution(), args.keys.get());
        let run = u32::from_le_bytes(ambient::seed());
        let mut orders = Vec::new();
        for thread in 0..args.threads {
            let (order, receiver) = channel();
            let (args, chooser, progress) = (shared.clone(), chooser.clone(), progress.clone());
            let worker = Worker { args, chooser, seed, run, thread, progress };
            let answer = answer.clone();
            // The thread ends when its orders do; its last answer says that it has.
            std::thread::Builder::new()
                .name(format!("bench-{thread}"))
                .spawn(move || worker.work(&receiver, &answer))
                .map_err(BenchError::System)?;
            orders.push(order);
        }
        let mut crew = Crew { orders, answers, progress };
        crew.answers(|_| TICK)?;
        Ok(crew)
    }

    fn order(&self, order: &Order) {
        self.progress.store(0, Ordering::Relaxed);
        for orders in &self.orders {
            // A thread that is gone has left an error among the answers.
            let _ = orders.send(order.clone());
        }
    }

    /// Waits for one answer of each thread. `watch` is called now and then with the
    /// operations answered so far, and says when it wants to be called again.
    fn answers(&mut self, mut watch: impl FnMut(u64) -> Duration) -> Answer {
        let mut sum = Measurements::default();
        let mut missing = self.orders.len();
        while missing > 0 {
            let pause = watch(self.progress.load(Ordering::Relaxed));
            match self.answers.recv_timeout(pause) {
                Ok(answer) => {
                    sum.add(&answer?);
                    missing -= 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(BenchError::System(std::io::Error::other("a thread of the generator is gone")));
                }
            }
        }
        Ok(sum)
    }

    fn load(&mut self, args: &BenchArgs) -> Result<LoadReport, BenchError> {
        let keys = args.keys.get();
        let bar = progress_bar(args, "loading");
        bar.set_length(keys);
        let begun = ambient::moment();
        self.order(&Order::Load(Arc::new(AtomicU64::new(0)), keys));
        let done = self.answers(|progress| {
            bar.set_position(progress);
            TICK
        })?;
        bar.finish_and_clear();
        // A key that a lost connection had taken counts as failed, one that nobody took as missing.
        if done.operations() < keys {
            return Err(BenchError::Load { failed: keys - done.operations(), keys, errors: done.errors });
        }
        let seconds = ambient::moment().since(begun).as_secs_f64();
        Ok(LoadReport { keys, seconds, keys_per_second: keys as f64 / seconds.max(f64::MIN_POSITIVE) })
    }
}

fn progress_bar(args: &BenchArgs, what: &'static str) -> ProgressBar {
    if args.output == OutputFormat::Json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:>9} [{wide_bar}] {percent:>3} % {msg:>12}")
        .expect("the template is a constant")
        .progress_chars("=> ");
    ProgressBar::new(1).with_style(style).with_prefix(what)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The moment before every other: what a phase that measures nothing begins with.
impl Plan {
    pub(super) fn unmeasured() -> Plan {
        Plan { from: Moment(0), warmup: Duration::ZERO, time: None, requests: None, rate: None }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
