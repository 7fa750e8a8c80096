//! The composition: which parts there are, in which order they start, and in which order they end.
//!
//! Owns: build, start, wait, drain. Does not own: what the parts do.

mod doors;
mod figures;
mod parts;
mod reloading;
mod secure;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use landfall_channel::{ChannelConfig, ChannelMetrics};
use landfall_coap::CoapServer;
use landfall_hub::CommandRequest;
use landfall_mqtt::{MqttServer, Sessions};
use landfall_nats::embedded::Embedded;
use landfall_nats::{
    AdminRequest, Dismissed, Guardian, Health, JetStreamStore, Publisher, Requests, Target, streams,
};
use landfall_net::{Following, Gate, Listener, Scope, Tls};
use landfall_udp::UdpServer;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::Failure;
use crate::admin::{self, AdminServer};
use crate::auth::Auth;
use crate::descriptors;
use crate::reloads::Reloads;
use crate::runfile::{Announced, RunFile};
use crate::settings::{Origin, Settings};
use crate::signals::Signals;

use doors::{Doors, Servers};
use parts::Standing;
use reloading::Reloading;
use secure::Secure;

/// How often the files of `[tls]` and `[dtls]` are looked at.
const TLS_WATCH: Duration = Duration::from_secs(5);
/// What is left of `drain_timeout` for the events once the devices have had their part.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// Runs a gateway until SIGTERM or SIGINT, and ends it in order. SIGHUP makes it read again what can be replaced while it runs; `origin`
/// says where its settings come from.
///
/// # Errors
/// When the settings cannot be put into effect, or a part that is needed cannot start.
pub async fn run(settings: Settings, origin: Origin) -> Result<(), Failure> {
    // From here on none of these signals ends the process by itself.
    let mut signals = Signals::listen()?;
    let hangup =
        signal(SignalKind::hangup()).map_err(|error| Failure::runtime(format!("signals: {error}")))?;
    settings.exposed().iter().for_each(|told| tracing::warn!("{told}"));
    let auth = Arc::new(Auth::from_settings(&settings.auth)?);
    let tls = parts::tls(&settings)?;
    let secure = Secure::load(&settings)?;
    let doors = Doors::bind(&settings, tls.as_ref()).await.map_err(Failure::runtime)?;
    let embedded = tokio::select! {
        embedded = parts::embedded(&settings) => embedded?,
        () = signals.end() => return Ok(()),
    };
    let target = parts::target(&settings, embedded.as_ref())?;
    let scopes = Scopes { parts: Scope::new(), inside: Scope::new(), doors: Scope::new() };
    let channels = secure.as_ref().map(Secure::config);
    let reloads = Arc::new(Reloads::default());
    follow((&settings, origin), (&auth, tls.as_ref(), secure), &reloads, (&scopes.parts, hangup));
    let mut gateway = Gateway::build(settings, (auth, channels), (target, reloads), scopes).await?;
    let started = tokio::select! {
        started = gateway.start(doors, embedded.as_ref()) => started.map(Some),
        () = signals.end() => Ok(None),
    };
    let mut replaced = false;
    if matches!(started, Ok(Some(_))) {
        replaced = tokio::select! {
            () = signals.end() => false,
            () = gateway.replaced() => true,
        };
        tracing::info!("draining");
    }
    // Who was replaced has nothing to tell that would be taken.
    let within = if replaced { LAST_EVENTS } else { gateway.settings.drain_timeout };
    let deadline = Instant::now() + within;
    tokio::select! {
        () = gateway.end(deadline) => {}
        () = signals.end() => tracing::warn!("told to stop a second time: what has not been stored is not waited for"),
    }
    if let Some(embedded) = embedded {
        // It has acknowledged what it has; how it ends makes no difference to that.
        embedded.stop(deadline.saturating_duration_since(Instant::now()).max(LAST_EVENTS)).await;
    }
    if replaced {
        let replica = gateway.standing.replica();
        return Err(Failure::runtime(format!(
            "instance.replica = \"{replica}\": another gateway of this name has started and taken over"
        )));
    }
    started.map(drop)
}

/// Follows the files that can be replaced while the gateway runs, and reads them again with each SIGHUP.
fn follow(
    (settings, origin): (&Settings, Origin),
    (auth, tls, secure): (&Arc<Auth>, Option<&Arc<Tls>>, Option<Secure>),
    reloads: &Arc<Reloads>,
    (scope, hangup): (&Scope, Signal),
) {
    let again = watch::Sender::new(0);
    let following = |file: &'static str| {
        reloads.follow(file);
        let reloads = Arc::clone(reloads);
        Following {
            every: TLS_WATCH,
            again: again.subscribe(),
            told: Box::new(move |read| match read {
                Ok(()) => reloads.is_taken(file),
                Err(error) => reloads.is_broken(file, error),
            }),
        }
    };
    if let Some(tls) = tls {
        tls.watch(scope, following("tls"));
    }
    if let Some(secure) = secure {
        secure.watch(scope, || following("dtls"));
    }
    let reloading = Reloading::new(settings, origin, (auth, reloads), again);
    scope.spawn(reloading.run(hangup, scope.token()));
}

/// Sets of tasks, in the order in which they end: nobody comes in, nothing more happens, what happened is published.
struct Scopes {
    /// The bus and the operator's interface.
    parts: Scope,
    /// Whatever makes events by itself: timers, requests.
    inside: Scope,
    /// Listeners and connections.
    doors: Scope,
}

/// The guardian while it keeps watch.
struct Watched {
    dismissed: watch::Receiver<Option<Dismissed>>,
    guard: oneshot::Receiver<Guardian>,
}

struct Gateway {
    settings: Settings,
    auth: Arc<Auth>,
    reloads: Arc<Reloads>,
    target: Target,
    client: async_nats::Client,
    bus: Arc<Publisher>,
    standing: Arc<Standing>,
    gate: Arc<Gate>,
    sessions: Option<Arc<Sessions>>,
    watched: Option<Watched>,
    coap: Arc<CoapServer>,
    udp: Arc<UdpServer>,
    scopes: Scopes,
}

impl Gateway {
    /// Makes every part that needs no answer from NATS, and the operator's interface, which tells what is missing.
    async fn build(
        settings: Settings,
        (auth, channels): (Arc<Auth>, Option<Arc<ChannelConfig>>),
        (target, reloads): (Target, Arc<Reloads>),
        scopes: Scopes,
    ) -> Result<Self, Failure> {
        let client = parts::client(&target).await?;
        let origin = parts::origin(&settings);
        let publisher = parts::publisher_settings(&settings, &origin)?;
        let bus = Arc::new(Publisher::start(&scopes.parts, target.clone(), client.clone(), publisher));
        let mut registry = Registry::default();
        admin::register_process(&mut registry);
        let store = (Arc::clone(&bus), client.clone());
        let standing = Standing::new((&settings, origin), store, Arc::clone(&reloads), &mut registry);
        let standing = Arc::new(standing);
        let gate = Gate::new(descriptors::limits(&settings));
        figures::register(&mut registry, &standing, (&gate, &auth, &reloads), &settings);
        let (hub, who) = (standing.hub(), || Arc::clone(&auth) as _);
        let metrics = ChannelMetrics::register(&mut registry);
        let channels = channels.map(|config| (config, metrics));
        let config = parts::coap_config(&settings);
        let coap = CoapServer::new(config, Arc::clone(hub), who(), channels.clone(), &mut registry);
        let config = parts::udp_config(&settings);
        let udp = UdpServer::new(config, Arc::clone(hub), who(), channels, &mut registry);
        if let Some(endpoint) = &settings.admin.listen {
            let listener = Listener::bind(endpoint, None).await.map_err(Failure::runtime)?;
            standing.set_admin(listener.local_addr().map_err(Failure::runtime)?);
            let hosts = parts::admin_hosts(&settings, endpoint);
            AdminServer::start(listener, &scopes.parts, Arc::clone(&standing) as _, registry, hosts);
        }
        Ok(Self {
            settings,
            auth,
            reloads,
            target,
            client,
            bus,
            standing,
            gate,
            sessions: None,
            watched: None,
            coap,
            udp,
            scopes,
        })
    }

    /// Answers devices at once, and lets them in when everything is in place and told; returns then.
    async fn start(&mut self, doors: Doors, embedded: Option<&Embedded>) -> Result<Announced, Failure> {
        let sessions = Arc::new(self.sessions());
        let servers = Servers {
            mqtt: self.mqtt_server(&sessions),
            coap: Arc::clone(&self.coap),
            udp: Arc::clone(&self.udp),
        };
        let listeners = doors.open(&servers, &self.scopes.doors, &self.gate, &self.settings);
        let mut announced = self.announce(listeners, embedded)?;
        let context = async_nats::jetstream::new(self.client.clone());
        let kept = parts::stream_settings(&self.settings);
        streams::establish(&context, &kept).await.map_err(Failure::runtime)?;
        if let Some(epoch) = Health::new(self.client.clone()).last_epoch().await.map_err(Failure::runtime)? {
            self.standing.hub().raise_epoch(epoch);
        }
        let hub = Arc::clone(self.standing.hub());
        let mut guardian = self.take_office().await?;
        hub.start(&self.scopes.inside);
        let memos = guardian.adopt(&parts::spool_place(&self.settings), &self.target).await;
        guardian.settle_the_past().await.map_err(Failure::runtime)?;
        self.watch_over(guardian);
        self.restore(sessions).await?;
        if let Some(sessions) = &self.sessions {
            sessions.recall(memos);
        }
        self.follow_auth();
        self.serve_requests().await?;
        hub.announce(&self.scopes.inside).await.map_err(Failure::runtime)?;
        self.standing.set_serving();
        announced.serves().map_err(|error| self.not_written(&error))?;
        tracing::info!("serving");
        Ok(announced)
    }

    async fn take_office(&self) -> Result<Guardian, Failure> {
        let (hub, settings) = (self.standing.hub(), parts::guardian_settings(&self.settings));
        let office = Guardian::take_office(hub, &self.bus, self.client.clone(), &self.scopes.parts, settings);
        office.await.map_err(Failure::runtime)
    }

    /// Lets the guardian keep watch until everything inside ends.
    fn watch_over(&mut self, mut guardian: Guardian) {
        let (tell, dismissed) = watch::channel(None);
        let (give_back, guard) = oneshot::channel();
        let inside = self.scopes.inside.clone();
        self.scopes.parts.spawn(async move {
            tell.send_replace(Some(guardian.keep_watch(&inside).await));
            let _ = give_back.send(guardian);
        });
        self.watched = Some(Watched { dismissed, guard });
    }

    /// Waits until another process of this replica's name has taken over; for ever otherwise.
    async fn replaced(&mut self) {
        let Some(Watched { dismissed, .. }) = &mut self.watched else { return std::future::pending().await };
        if dismissed.wait_for(|dismissed| *dismissed == Some(Dismissed::Replaced)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Gives lease and fences back, if everything is told: else the next start, or another replica, tells the rest.
    async fn leave(&mut self, everything_is_told: bool) {
        let Some(Watched { guard, .. }) = self.watched.take() else { return };
        if everything_is_told
            && let Ok(Ok(guardian)) = tokio::time::timeout(LAST_EVENTS, guard).await
            && !matches!(tokio::time::timeout(LAST_EVENTS, guardian.leave()).await, Ok(Ok(())))
        {
            tracing::info!("the lease was not given back; the next start finds that nothing is open");
        }
    }

    /// None yet: they are read when the office is taken.
    fn sessions(&self) -> Sessions {
        let store = Arc::new(JetStreamStore::new(self.client.clone(), self.settings.instance.name.clone()));
        Sessions::new(Arc::clone(self.standing.hub()), store, parts::offline_limits(&self.settings))
    }

    fn mqtt_server(&self, sessions: &Arc<Sessions>) -> Arc<MqttServer> {
        let (hub, auth) = (Arc::clone(self.standing.hub()), Arc::clone(&self.auth) as _);
        MqttServer::new(parts::mqtt_config(&self.settings), hub, auth, Arc::clone(sessions))
    }

    /// Reads the MQTT sessions of earlier starts, and keeps them from then on.
    async fn restore(&mut self, sessions: Arc<Sessions>) -> Result<(), Failure> {
        sessions.restore().await.map_err(Failure::runtime)?;
        sessions.start(&self.scopes.inside);
        self.standing.hub().set_offline(Arc::clone(&sessions) as _);
        self.standing.set_sessions(Arc::clone(&sessions));
        self.sessions = Some(sessions);
        Ok(())
    }

    /// Ends the sessions of devices whose entry is gone or has changed.
    fn follow_auth(&self) {
        let (auth, reloads) = (Arc::clone(&self.auth), Arc::clone(&self.reloads));
        let stop = self.scopes.inside.token();
        self.scopes.inside.spawn(async move { auth.run(stop, &reloads).await });
        let (auth, hub) = (Arc::clone(&self.auth), Arc::clone(self.standing.hub()));
        let scope = self.scopes.inside.clone();
        let mut changes = self.auth.changes();
        self.scopes.inside.spawn(async move {
            loop {
                tokio::select! {
                    () = scope.cancelled() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
                let ended = hub.revoke(|tenant, device, acl| auth.still_valid(tenant, device, acl));
                tracing::info!(ended, "the devices have changed");
            }
        });
    }

    async fn serve_requests(&self) -> Result<(), Failure> {
        let instance = &self.settings.instance.name;
        let hub = Arc::clone(self.standing.hub());
        let commands = Arc::new(move |request: CommandRequest| hub.command(request));
        let (standing, scope) = (Arc::clone(&self.standing), self.scopes.inside.clone());
        let calls = Arc::new(move |request: AdminRequest| {
            let body = admin::answer((&request.call, &request.payload), standing.replica(), &standing);
            if let Some(answer) = request.answer {
                scope.spawn(answer.send(body));
            }
        });
        Requests::serve(&self.scopes.inside, &self.client, instance, commands, calls)
            .await
            .map_err(Failure::runtime)?;
        Ok(())
    }

    /// Tells the commands on this machine where the gateway is.
    fn announce(
        &self,
        listeners: BTreeMap<String, Vec<String>>,
        embedded: Option<&Embedded>,
    ) -> Result<Announced, Failure> {
        let origin = self.standing.origin();
        // Who may read the run file may use the gateway's own server.
        let nats = embedded.map_or_else(|| self.target.to_string(), Embedded::url);
        let place = self.target.to_string();
        let admin = self.standing.admin();
        tracing::info!(
            instance = %origin.instance, replica = %origin.replica, nats = place, ?listeners, admin,
            "devices are answered, and let in when JetStream is ready"
        );
        let run = RunFile {
            pid: std::process::id(),
            instance: origin.instance.to_string(),
            replica: origin.replica.to_string(),
            incarnation: origin.incarnation.to_string(),
            nats,
            admin,
            listeners,
            serving: false,
        };
        run.announce(&self.settings.nats.store_dir).map_err(|error| self.not_written(&error))
    }

    fn not_written(&self, error: &std::io::Error) -> Failure {
        let store_dir = &self.settings.nats.store_dir;
        Failure::Usage(format!("nats.store_dir = {store_dir:?}: the run file cannot be written: {error}"))
    }

    /// Lets nobody in any more, tells those who are inside, publishes how it all ended. Each step has what is left until
    /// the deadline, and the last ones a moment of their own in any case.
    async fn end(&mut self, deadline: Instant) {
        let left =
            |reserve: Duration| deadline.saturating_duration_since(Instant::now()).saturating_sub(reserve);
        self.standing.set_draining();
        self.scopes.doors.cancel();
        let drained = tokio::time::timeout(left(2 * LAST_EVENTS), self.standing.hub().drain()).await;
        match &drained {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "not every event was stored"),
            Err(_) => tracing::error!("not every event was stored in time"),
        }
        let all_is_told = matches!(drained, Ok(Ok(())));
        let cut = self.scopes.doors.drain(left(2 * LAST_EVENTS)).await;
        if !cut.is_clean() {
            tracing::warn!(connections = cut.aborted, "connections were cut at the end of drain_timeout");
        }
        if let Some(sessions) = &self.sessions {
            // What is not stored by then is what a crash would have lost.
            let _ = tokio::time::timeout(left(LAST_EVENTS), sessions.flushed()).await;
        }
        self.scopes.inside.drain(left(LAST_EVENTS)).await;
        // What is dropped on the way there is told with the rest.
        self.bus.settled(left(LAST_EVENTS)).await;
        if let Some(dropped) = self.bus.take_dropped() {
            self.standing.hub().tell_dropped(dropped);
        }
        let all_is_stored = self.bus.close(left(Duration::ZERO).max(LAST_EVENTS / 2)).await;
        self.leave(all_is_told && all_is_stored).await;
        self.scopes.parts.drain(LAST_EVENTS / 2).await;
    }
}
