//! One thread of the generator: a current-thread runtime and its share of the connections.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender};

use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};

use super::alarm::Alarm;
use super::args::BenchArgs;
use super::connection::{Driver, Phase, ring_when_due};
use super::keys::KeyChooser;
use super::measure::Measurements;
use super::operation::Operations;
use super::run::BenchError;
use super::schedule::Plan;
use crate::types::Moment;

/// What the thread that directs the run asks of the others.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Write each key once: the next one, and how many there are.
    Load(Arc<AtomicU64>, u64),
    /// Run the mix.
    Run(Plan),
}

/// What a thread answers to each order, and once it is connected.
pub(super) type Answer = Result<Measurements, BenchError>;

/// What a thread needs to begin.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) args: Arc<BenchArgs>,
    pub(super) chooser: KeyChooser,
    pub(super) seed: u64,
    /// Differs from run to run.
    pub(super) run: u32,
    pub(super) thread: u32,
    pub(super) progress: Arc<AtomicU64>,
}

impl Worker {
    /// Connects, then carries out orders until there are no more. An error is the last answer.
    pub(super) fn work(self, orders: &Receiver<Order>, answers: &Sender<Answer>) {
        if let Err(error) = self.serve(orders, answers) {
            // Nobody listens any more once another thread has failed.
            let _ = answers.send(Err(error));
        }
    }

    fn serve(&self, orders: &Receiver<Order>, answers: &Sender<Answer>) -> Result<(), BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::System)?;
        let mut drivers = runtime.block_on(self.connect())?;
        let mut measurements = Measurements::default();
        while answers.send(Ok(measurements)).is_ok() {
            let Ok(order) = orders.recv() else { return Ok(()) };
            let done = LocalSet::new().block_on(&runtime, self.carry_out(order, drivers));
            (drivers, measurements) = done.map_err(BenchError::System)?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Vec<Driver>, BenchError> {
        let args = &self.args;
        let mix = args.effective_mix();
        let mut drivers = Vec::new();
        for writer in (self.thread..args.connections).step_by(args.threads as usize) {
            let target = args.targets[writer as usize % args.targets.len()].clone();
            let operations = Operations::new(args, &mix, self.chooser.clone(), self.seed, self.run, writer);
            drivers.push(Driver::connect(target, args.timeout, args.wait, operations).await?);
        }
        Ok(drivers)
    }

    async fn carry_out(&self, order: Order, drivers: Vec<Driver>) -> std::io::Result<(Vec<Driver>, Measurements)> {
        let (plan, pipeline, loading) = match order {
            Order::Run(plan) => (plan, self.args.pipeline, None),
            Order::Load(next, count) => {
                // Deep enough to be quick, and shallow enough for large values.
                let depth = (1 << 20) / (self.args.value_size + 1);
                (Plan::unmeasured(), depth.clamp(1, 16), Some((next, count)))
            }
        };
        let phase = Rc::new(Phase {
            schedule: plan.for_thread(u64::from(self.thread), u64::from(self.args.threads)),
            measurements: RefCell::default(),
            due: Notify::new(),
            progress: self.progress.clone(),
            pipeline: pipeline as usize,
            loading,
        });
        let mut tasks = JoinSet::new();
        for mut driver in drivers {
            let phase = phase.clone();
            tasks.spawn_local(async move {
                driver.run(phase).await;
                driver
            });
        }
        if phase.schedule.is_open() {
            ring_when_due(&phase, &Alarm::new()?).await?;
        }
        let drivers = tasks.join_all().await;
        let mut measurements = phase.measurements.take();
        measurements.never_begun = phase.schedule.never_begun();
        if measurements.last == Moment::default() {
            measurements.last = plan.record_from();
        }
        Ok((drivers, measurements))
    }
}
