//! The question to a server that may hang, and to those beside it.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    check::Check,
    pool::Pool,
    server::Server,
    suspect,
    target::{Target, Tools, Who},
};

/// What is asked whether it hangs has so long; then it is asked anew, if it still may.
const ASK_WITHIN: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// One server that may hang, or is asked beside one.
pub(super) struct Question {
    target: Target,
    check: Check,
    tools: Tools,
}

impl Question {
    /// `None`: it is asked already.
    pub(super) fn of(pool: &Pool, server: Arc<Server>, tools: Tools) -> Option<Self> {
        if !server.vitals.silence.begin_question() {
            return None;
        }
        let who = Who { upstream: pool.name().clone(), server: server.label.clone() };
        let target = Target { who, address: server.address.clone(), vitals: server.vitals.clone() };
        Some(Self { check: suspect::question(pool, &server), target, tools })
    }

    /// Until it has said anything, nobody waits for it, or it is gone.
    pub(super) async fn ask(self) {
        loop {
            // What it answers is noted on the way.
            let answer = self.tools.probe(&self.target, &self.check, ASK_WITHIN).await;
            tracing::debug!(upstream = %self.target.who.upstream, server = %self.target.who.server, ?answer, "server asked whether it hangs");
            if self.target.vitals.silence.is_trusted() || self.target.vitals.closed() {
                return;
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.target.vitals.silence.end_question();
    }
}
