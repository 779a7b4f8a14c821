//! Which threads and tasks live, and how they end.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::publish::Publisher;
use crate::shared::Shared;
use crate::worker::{self, Command};

/// Time between looks at ejected endpoints.
const SWEEP: Duration = Duration::from_secs(1);

/// The worker threads.
pub struct Workers {
    commands: Vec<UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub fn start(shared: &Arc<Shared>, count: usize) -> io::Result<Self> {
        let (mut commands, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count.max(1) {
            let (sender, thread) = worker::start(index, Arc::clone(shared))?;
            commands.push(sender);
            threads.push(thread);
        }
        Ok(Self { commands, threads })
    }

    pub fn publisher(&self, shared: &Arc<Shared>) -> Publisher {
        Publisher::new(Arc::clone(shared), self.commands.clone())
    }

    /// Drains all connections and waits for the threads; at most about the drain time.
    pub fn drain(self) {
        for worker in &self.commands {
            let _ = worker.send(Command::Drain);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread ended with a panic");
            }
        }
    }
}

/// Lets ejected endpoints return when their time is over; runs until dropped.
pub async fn sweep_outliers(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        shared.balancers.sweep(shared.time(Instant::now()));
    }
}
