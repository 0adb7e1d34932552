//! Certificates change while frames flow: connections are renewed one by one, nothing is
//! lost, and what cannot be used changes nothing.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use dogsled::ambient;
use dogsled::transport::certificates::{Authority, TlsFiles, Validity};
use dogsled::transport::quic::QuicSettings;
use dogsled::transport::{SendError, Transport, TransportEvent};

use crate::transport::{Certificates, Log, QuicNode, assert_undisturbed, connect, dial, node, valid};

fn renew(certificates: &Certificates, of: &QuicNode) {
    let files = certificates.of_node(of.id());
    let issued = certificates.authority.issue_node(of.id(), valid()).expect("a certificate");
    issued.replace(&files.certificate, &files.key).expect("files");
}

/// Sends numbered frames both ways until both ends were told of a renewed connection so
/// many times; then checks that every frame arrived, in order.
async fn flow(one: &mut QuicNode, two: &mut QuicNode, renewals: usize) {
    let (mut sent, mut ups) = ([0u32; 2], [0; 2]);
    let mut arrived = [Vec::new(), Vec::new()];
    while ups != [renewals; 2] {
        for (index, from, to) in [(0, &*one, two.id()), (1, &*two, one.id())] {
            match from.transport.send(to, Bytes::copy_from_slice(&sent[index].to_le_bytes())) {
                Ok(()) => sent[index] += 1,
                Err(SendError::QueueFull) => {}
                Err(error) => panic!("{error} while a connection is renewed"),
            }
        }
        for (index, node) in [&mut *one, &mut *two].into_iter().enumerate() {
            while let Some(event) = node.inbox.try_next() {
                match event {
                    TransportEvent::Up { .. } => ups[index] += 1,
                    TransportEvent::Frames { frames, .. } => arrived[index].extend(frames),
                    other => panic!("{other:?} while a connection is renewed"),
                }
            }
        }
        tokio::task::yield_now().await;
    }
    let ids = [two.id(), one.id()];
    for (index, (node, from)) in [&mut *one, &mut *two].into_iter().zip(ids).enumerate() {
        let expected = sent[1 - index] as usize;
        node.inbox.forget_frames();
        let missing = expected - arrived[index].len();
        arrived[index].extend(node.inbox.frames(from, missing).await);
        for (number, frame) in arrived[index].iter().enumerate() {
            assert_eq!(frame[..], (number as u32).to_le_bytes(), "out of order");
        }
    }
}

#[tokio::test]
async fn certificates_of_either_end_change_while_frames_flow() {
    // Either node may be the one that has dialled.
    for (dials, accepts) in [(1, 2), (2, 1)] {
        let certificates = Certificates::new();
        let mut dialler = QuicNode::start(certificates.options(node(dials), 1));
        let mut acceptor = QuicNode::start(certificates.options(node(accepts), 1));
        dial(&mut dialler, &mut acceptor).await;

        let seen_before = acceptor.transport.peer_certificate(node(dials)).expect("connected");
        renew(&certificates, &dialler);
        dialler.transport.reload_certificates().expect("good files");
        flow(&mut dialler, &mut acceptor, 1).await;
        assert_ne!(acceptor.transport.peer_certificate(node(dials)).expect("connected"), seen_before);

        let seen_before = dialler.transport.peer_certificate(node(accepts)).expect("connected");
        renew(&certificates, &acceptor);
        acceptor.transport.reload_certificates().expect("good files");
        flow(&mut dialler, &mut acceptor, 1).await;
        assert_ne!(dialler.transport.peer_certificate(node(accepts)).expect("connected"), seen_before);

        for node in [&dialler, &acceptor] {
            let counters = node.counters();
            assert_eq!((counters.connections_renewed, counters.connections_lost), (2, 0), "{counters:?}");
        }
        let standing = |node: &QuicNode| (node.counters().standing_dialled, node.counters().standing_accepted);
        assert_eq!((standing(&dialler), standing(&acceptor)), ((1, 0), (0, 1)));
        assert_eq!(dialler.counters().frames_sent, acceptor.counters().frames_received);
        assert_undisturbed(&mut dialler, &mut acceptor).await;
    }
}

#[tokio::test]
async fn changed_files_are_taken_up_by_themselves_and_bad_ones_are_not() {
    let log = Log::capture();
    let certificates = Certificates::new();
    let mut options = certificates.options(node(1), 1);
    options.settings = QuicSettings { certificate_check: Duration::from_millis(20), ..QuicSettings::default() };
    let mut dialler = QuicNode::start(options);
    let mut acceptor = QuicNode::start(certificates.options(node(2), 1));
    connect(&mut dialler, &mut acceptor).await;
    let first = acceptor.transport.peer_certificate(node(1)).expect("connected");

    let files = certificates.of_node(node(1));
    let good = fs::read(&files.certificate).expect("a certificate");
    let foreign = Authority::create(valid()).expect("an authority");
    for bad in [&b"not a certificate"[..], foreign.certificate_pem().as_bytes(), b""] {
        let failures = dialler.counters().certificate_reload_failures;
        fs::write(&files.certificate, bad).expect("a file");
        dialler.counted("failure", |counters| counters.certificate_reload_failures > failures).await;
    }
    log.assert_says(&["WARN", "the new certificates cannot be used", "n1.pem"]);
    fs::write(&files.certificate, good).expect("a file");
    assert_undisturbed(&mut dialler, &mut acceptor).await;
    assert_eq!(acceptor.transport.peer_certificate(node(1)), Some(first.clone()), "still the first one");

    renew(&certificates, &dialler);
    while acceptor.transport.peer_certificate(node(1)).is_none_or(|shown| shown == first) {
        acceptor.inbox.up(node(1)).await;
    }
    assert_undisturbed(&mut dialler, &mut acceptor).await;
}

/// A new authority comes in three steps: everybody trusts both, everybody gets a new
/// certificate, nobody trusts the old one any more.
#[tokio::test]
async fn the_authority_itself_can_be_replaced() {
    let certificates = Certificates::new();
    let own_ca = |number: u32| {
        let mut options = certificates.options(node(number), 1);
        let ca = certificates.path(&format!("n{number}.ca.pem"));
        fs::copy(&options.tls.ca, &ca).expect("a copy");
        options.tls.ca = ca;
        options
    };
    let (one, two) = (own_ca(1), own_ca(2));
    let files: [TlsFiles; 2] = [one.tls.clone(), two.tls.clone()];
    let (mut one, mut two) = (QuicNode::start(one), QuicNode::start(two));
    connect(&mut one, &mut two).await;

    let next = Authority::create(valid()).expect("an authority");
    let both = [certificates.authority.certificate_pem(), next.certificate_pem()].concat();
    for (ca, issue) in [(Some(both.as_str()), false), (None, true), (Some(next.certificate_pem()), false)] {
        for index in 0..2 {
            if let Some(ca) = ca {
                fs::write(&files[index].ca, ca).expect("a file");
            }
            if issue {
                let issued = next.issue_node(node(index as u32 + 1), valid()).expect("a certificate");
                issued.replace(&files[index].certificate, &files[index].key).expect("files");
            }
            [&one, &two][index].transport.reload_certificates().expect("good files");
            flow(&mut one, &mut two, 1).await;
        }
    }
    assert_eq!((one.counters().connections_lost, two.counters().connections_lost), (0, 0));
    assert_eq!((one.counters().refused_total(), two.counters().refused_total()), (0, 0));
}

#[tokio::test]
async fn a_certificate_that_is_about_to_expire_is_spoken_of() {
    let log = Log::capture();
    let certificates = Certificates::new();
    let soon = Validity::days(ambient::wall(), 6);
    certificates.write("n1", &certificates.authority.issue_node(node(1), soon).expect("a certificate"));
    let mut dialler = QuicNode::start(certificates.options(node(1), 1));
    let mut acceptor = QuicNode::start(certificates.options(node(2), 1));
    connect(&mut dialler, &mut acceptor).await;
    log.assert_says(&["WARN", "n1.node.dogsled", "expires within 7 days", "renew it"]);
}
