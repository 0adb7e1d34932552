//! Who is not let in: refused, counted under the right reason, logged; and two other
//! nodes, connected meanwhile, notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dogsled::ambient;
use dogsled::transport::certificates::{Authority, TlsFiles, Validity};
use dogsled::transport::quic::{QuicOptions, QuicSettings};
use dogsled::transport::{HandshakeRefusal, Peer, Transport};
use dogsled::types::{ClusterId, Incarnation, WallTime};
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use crate::transport::{
    Certificates, Intruder, Log, QuicNode, assert_undisturbed, connect, greeting, hello, keep_all, node, valid,
};

/// n5, which is attacked, and n6, which is its friend. n1 and n2 are members, too.
struct Scene {
    certificates: Certificates,
    target: QuicNode,
    friend: QuicNode,
    log: Log,
}

impl Scene {
    async fn set() -> Scene {
        Scene::with(|_| {}).await
    }

    async fn with(adjust: impl Fn(&mut QuicOptions)) -> Scene {
        let log = Log::capture();
        let certificates = Certificates::new();
        let start = |number| {
            let mut options = certificates.options(node(number), 1);
            adjust(&mut options);
            QuicNode::start(options)
        };
        let (mut target, mut friend) = (start(5), start(6));
        connect(&mut target, &mut friend).await;
        // Members that are not running: only they may dial.
        let absent = |number| Peer { id: node(number), address: "127.0.0.1:1".parse().expect("an address") };
        target.transport.set_peers(vec![absent(1), absent(2), friend.peer()]);
        Scene { certificates, target, friend, log }
    }

    async fn refuses(&mut self, reason: HandshakeRefusal) {
        self.target.refused(reason).await;
        let counters = self.target.counters();
        assert_eq!(counters.refused_total(), counters.refused(reason), "counted under another reason: {counters:?}");
        self.log.assert_says(&["WARN", "refused", reason.name()]);
        assert_eq!(counters.connections_opened, 1, "only the friend was let in");
        assert_undisturbed(&mut self.target, &mut self.friend).await;
    }

    /// Knocks with this certificate and a proper greeting of n1.
    async fn knock(&self, shows: Option<&TlsFiles>) {
        let intruder = Intruder::new(shows);
        // The refusal may come before or after QUIC calls the connection made.
        let Ok(connection) = intruder.connect(&self.target).await else { return };
        if let Ok((mut send, _receive)) = connection.open_bi().await {
            let _ = send.write_all(&greeting(&hello(node(1)).encode())).await;
        }
        connection.closed().await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let mut scene = Scene::set().await;
    let foreign = Authority::create(valid()).expect("an authority");
    let shows = scene.certificates.write("foreign", &foreign.issue_node(node(1), valid()).expect("a certificate"));
    scene.knock(Some(&shows)).await;
    scene.refuses(HandshakeRefusal::WrongAuthority).await;
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let mut scene = Scene::set().await;
    scene.knock(None).await;
    scene.refuses(HandshakeRefusal::NoCertificate).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let mut scene = Scene::set().await;
    let now = ambient::wall();
    let past = Validity { from: WallTime(now.0 - 10_000_000), until: WallTime(now.0 - 5_000) };
    let shows = scene
        .certificates
        .write("old", &scene.certificates.authority.issue_node(node(1), past).expect("a certificate"));
    scene.knock(Some(&shows)).await;
    scene.refuses(HandshakeRefusal::Expired).await;
}

#[tokio::test]
async fn a_clients_certificate_opens_no_node_port() {
    let mut scene = Scene::set().await;
    for name in ["alice", "n1", "n1.node.dogsled"] {
        let issued = scene.certificates.authority.issue_client(name, valid()).expect("a certificate");
        let shows = scene.certificates.write(name, &issued);
        scene.knock(Some(&shows)).await;
    }
    scene.target.counted("third refusal", |counters| counters.refused(HandshakeRefusal::WrongName) == 3).await;
    scene.refuses(HandshakeRefusal::WrongName).await;
}

#[tokio::test]
async fn a_node_that_gives_anothers_name_is_refused() {
    let mut scene = Scene::set().await;
    // The certificate of n2, the greeting of n1.
    let shows = scene.certificates.of_node(node(2));
    scene.knock(Some(&shows)).await;
    scene.refuses(HandshakeRefusal::WrongName).await;
}

#[tokio::test]
async fn a_node_that_is_no_member_is_refused() {
    let mut scene = Scene::set().await;
    let shows = scene.certificates.of_node(node(3));
    scene.knock(Some(&shows)).await;
    scene.refuses(HandshakeRefusal::NotMember).await;
}

#[tokio::test]
async fn a_node_that_uses_the_targets_own_name_is_refused() {
    let mut scene = Scene::set().await;
    let shows = scene.certificates.of_node(node(5));
    scene.knock(Some(&shows)).await;
    scene.refuses(HandshakeRefusal::NotMember).await;
}

#[tokio::test]
async fn a_removed_node_is_parted_from_and_not_let_in_again() {
    let mut scene = Scene::set().await;
    let mut member = QuicNode::start(scene.certificates.options(node(2), 1));
    let target = Peer { id: node(5), address: scene.target.address() };
    keep_all(&*member.transport, vec![target]);
    member.inbox.up(node(5)).await;
    scene.target.inbox.up(node(2)).await;
    scene.target.transport.set_peers(vec![scene.friend.peer()]);
    scene.target.inbox.down(node(2)).await;
    member.inbox.down(node(5)).await;
    scene.target.inbox.downs = 0;
    // It dials again by itself, and learns why it is not let in.
    member.counted("refusal", |counters| counters.refused_by_peer > 0).await;
    scene.target.refused(HandshakeRefusal::NotMember).await;
    scene.log.assert_says(&["WARN", "the peer refuses this node", "not_member"]);
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused() {
    let mut scene = Scene::set().await;
    let mut options = scene.certificates.options(node(1), 1);
    options.cluster = ClusterId([8; 16]);
    let stranger = QuicNode::start(options);
    keep_all(&*stranger.transport, vec![scene.target.peer()]);
    stranger.counted("refusal", |counters| counters.refused_by_peer > 0).await;
    scene.refuses(HandshakeRefusal::WrongCluster).await;
    scene.log.assert_says(&["the peer refuses this node", "wrong_cluster"]);
}

#[tokio::test]
async fn a_dialler_that_reaches_another_node_refuses_it() {
    let scene = Scene::set().await;
    let misled = QuicNode::start(scene.certificates.options(node(1), 1));
    keep_all(&*misled.transport, vec![Peer { id: node(6), address: scene.target.address() }]);
    misled.refused(HandshakeRefusal::WrongName).await;
    assert_eq!(misled.counters().connections_opened, 0);
    scene.log.assert_says(&["refused the node that was dialled", "wrong_name", "peer=n6"]);
    let (mut target, mut friend) = (scene.target, scene.friend);
    target.counted("refusal", |counters| counters.refused_by_peer > 0).await;
    assert_undisturbed(&mut target, &mut friend).await;
}

#[tokio::test]
async fn a_dialler_refuses_a_node_under_another_authority() {
    let log = Log::capture();
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let impostor = QuicNode::start(theirs.options(node(2), 1));
    let dialler = QuicNode::start(ours.options(node(1), 1));
    impostor.transport.set_peers(vec![dialler.peer()]);
    keep_all(&*dialler.transport, vec![impostor.peer()]);
    dialler.refused(HandshakeRefusal::WrongAuthority).await;
    log.assert_says(&["refused the node that was dialled", "wrong_authority"]);
    assert_eq!(dialler.counters().connections_opened, 0);
}

#[tokio::test]
async fn a_surpassed_life_is_refused() {
    let mut scene = Scene::set().await;
    let target = scene.target.peer();
    let mut newer = QuicNode::start(scene.certificates.options(node(1), 8));
    keep_all(&*newer.transport, vec![target]);
    newer.inbox.up(node(5)).await;
    assert_eq!(scene.target.inbox.up(node(1)).await, Incarnation(8));
    newer.transport.close().await;
    scene.target.inbox.down(node(1)).await;
    scene.target.inbox.downs = 0;
    let older = QuicNode::start(scene.certificates.options(node(1), 7));
    keep_all(&*older.transport, vec![target]);
    older.counted("refusal", |counters| counters.refused_by_peer > 0).await;
    scene.target.refused(HandshakeRefusal::StaleIncarnation).await;
    scene.log.assert_says(&["refused", "stale_incarnation", "life 7", "life 8"]);
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

#[tokio::test]
async fn a_second_node_of_the_same_name_is_refused_while_the_first_is_there() {
    let mut scene = Scene::set().await;
    let target = scene.target.peer();
    let mut first = QuicNode::start(scene.certificates.options(node(1), 1));
    keep_all(&*first.transport, vec![target]);
    first.inbox.up(node(5)).await;
    scene.target.inbox.up(node(1)).await;
    let twin = QuicNode::start(scene.certificates.options(node(1), 1));
    keep_all(&*twin.transport, vec![target]);
    twin.counted("refusal", |counters| counters.refused_by_peer > 0).await;
    scene.target.refused(HandshakeRefusal::DuplicateNode).await;
    scene.log.assert_says(&["refused", "duplicate_node"]);
    assert_undisturbed(&mut scene.target, &mut first).await;
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

#[tokio::test]
async fn who_does_not_greet_in_time_is_refused() {
    let quick = |options: &mut QuicOptions| {
        options.settings = QuicSettings { handshake_timeout: Duration::from_millis(500), ..QuicSettings::default() };
    };
    let mut scene = Scene::with(quick).await;
    let shows = scene.certificates.of_node(node(1));
    let intruder = Intruder::new(Some(&shows));
    let silent = intruder.connect(&scene.target).await.expect("a connection");
    scene.refuses(HandshakeRefusal::Timeout).await;
    silent.closed().await;
    let slow = intruder.begin(&scene.target, &greeting(&hello(node(1)).encode())[..10]).await;
    scene.target.counted("second", |counters| counters.refused(HandshakeRefusal::Timeout) == 2).await;
    slow.connection.closed().await;
    let undecided = intruder.half_greet(&scene.target, node(1)).await;
    scene.target.counted("third", |counters| counters.refused(HandshakeRefusal::Timeout) == 3).await;
    undecided.connection.closed().await;
    assert_eq!(scene.target.counters().connections_opened, 1, "only the friend was let in");
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let mut scene = Scene::set().await;
    let shows = scene.certificates.of_node(node(1));
    let intruder = Intruder::with(Some(&shows), |tls| tls.alpn_protocols = vec![b"h3".to_vec()]);
    assert!(intruder.connect(&scene.target).await.is_err());
    scene.refuses(HandshakeRefusal::WrongVersion).await;
}

#[tokio::test]
async fn more_handshakes_than_are_heard_out_are_turned_away() {
    let few = |options: &mut QuicOptions| {
        options.settings =
            QuicSettings { max_handshakes: 2, handshake_timeout: Duration::from_secs(2), ..QuicSettings::default() };
    };
    let mut scene = Scene::with(few).await;
    let shows = scene.certificates.of_node(node(1));
    let intruder = Intruder::new(Some(&shows));
    // The second one had to show first that its address is its own.
    let first = intruder.connect(&scene.target).await.expect("a connection");
    let second = intruder.connect(&scene.target).await.expect("a connection");
    assert!(intruder.connect(&scene.target).await.is_err(), "a third was heard");
    assert_eq!(scene.target.counters().refused(HandshakeRefusal::Overloaded), 1);
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
    first.closed().await;
    second.closed().await;
    scene.target.counted("timeouts", |counters| counters.refused(HandshakeRefusal::Timeout) == 2).await;
    let mut member = QuicNode::start(scene.certificates.options(node(1), 1));
    keep_all(&*member.transport, vec![scene.target.peer()]);
    member.inbox.up(node(5)).await;
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

#[tokio::test]
async fn a_second_node_of_the_same_name_is_refused_while_the_first_was_dialled() {
    let mut scene = Scene::set().await;
    let target = scene.target.peer();
    let mut first = QuicNode::start(scene.certificates.options(node(2), 1));
    first.transport.set_peers(vec![target]);
    scene.target.transport.set_peers(vec![scene.friend.peer(), first.peer()]);
    scene.target.transport.keep([first.id(), scene.friend.id()].into());
    first.inbox.up(node(5)).await;
    scene.target.inbox.up(node(2)).await;
    let twin = QuicNode::start(scene.certificates.options(node(2), 1));
    keep_all(&*twin.transport, vec![target]);
    twin.counted("refusal", |counters| counters.refused_by_peer > 0).await;
    scene.target.refused(HandshakeRefusal::DuplicateNode).await;
    assert_undisturbed(&mut scene.target, &mut first).await;
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

/// A resumed session skips the certificate check: a certificate could expire, or its
/// authority be dropped, and its owner would still be let in.
#[tokio::test]
async fn sessions_are_never_resumed() {
    #[derive(Debug, Default)]
    struct Tickets(AtomicUsize);

    impl ClientSessionStore for Tickets {
        fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
        fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
            None
        }
        fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
        fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
            None
        }
        fn remove_tls12_session(&self, _: &ServerName<'static>) {}
        fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
            None
        }
    }

    let mut scene = Scene::set().await;
    let shows = scene.certificates.of_node(node(1));
    let tickets = Arc::new(Tickets::default());
    let intruder = Intruder::with(Some(&shows), |tls| tls.resumption = Resumption::store(tickets.clone()));
    // Tickets would come with the end of the handshake, before the greeting in return.
    let _stream = intruder.greet(&scene.target, node(1)).await;
    scene.target.inbox.up(node(1)).await;
    assert_eq!(tickets.0.load(Ordering::Relaxed), 0, "tickets were given out");
}
