//! The forwards of a node: each a listener with a task of its own.

use std::sync::Arc;
use std::time::Instant;

use super::Control;
use crate::forward;
use crate::meter::ForwardMeter;
use crate::net::{ListenIo as _, Net, TcpConfig};
use crate::session::Origin;
use crate::words::cannot_listen;
use futures_channel::oneshot;
use inp2p_core::agent::io::Input;
use inp2p_core::tunnel::ForwardRule;

/// A forward, as the control task knows it.
pub(super) struct Forward {
    pub(super) meter: Arc<ForwardMeter>,
    /// Dropped to stop listening; none once it is to.
    pub(super) listening: Option<oneshot::Sender<()>>,
    /// Ends when the listener is closed.
    pub(super) ended: Option<oneshot::Receiver<()>>,
}

impl<N: Net> Control<N> {
    pub(super) fn listen(&mut self, now: Instant, rule: &ForwardRule) {
        let Some(commands) = self.session(&rule.peer) else {
            let result = Err("too many peers".to_owned());
            return self.agent.handle(now, Input::Forward { name: &rule.name, result });
        };
        let config = TcpConfig { local: Some(rule.listen), ..TcpConfig::default() };
        let listener = self.net.listen(&config).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let result = match listener {
            Ok((address, listener)) => {
                let (guard, stop) = oneshot::channel();
                let meter = Arc::new(ForwardMeter::default());
                let origin = Origin { target: rule.target.as_str().into(), meter: Arc::clone(&meter) };
                let task = forward::run(self.net.clone(), listener, origin, commands, stop);
                let (end, ended) = oneshot::channel::<()>();
                self.net.spawn("forward", async move {
                    task.await;
                    drop(end);
                });
                let forward = Forward { meter, listening: Some(guard), ended: Some(ended) };
                self.forwards.insert(rule.name.clone(), forward);
                Ok(address)
            }
            Err(error) => {
                self.forwards.remove(&rule.name);
                Err(cannot_listen(&error))
            }
        };
        self.agent.handle(now, Input::Forward { name: &rule.name, result });
    }
}
