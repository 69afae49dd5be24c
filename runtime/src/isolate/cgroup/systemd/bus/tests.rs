//! Against a peer that says what a test lets it say. Against systemd itself: the suite, in a VM.

use super::super::manager;
use super::super::wire::tests::answer;
use super::*;

/// A conversation about `a.scope` whose peer has said `words` already.
fn after(words: &[Vec<u8>]) -> (Bus, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    words.iter().for_each(|word| theirs.write_all(word).unwrap());
    (Bus::over(ours, "a.scope", Duration::from_millis(200)), theirs)
}

fn reply(to: u32) -> Vec<u8> {
    answer(
        wire::METHOD_RETURN,
        vec![(5, Value::U32(to)), (7, Value::text(":1"))],
        &[Value::Path("/job/1".into())],
    )
}

fn removed(job: &str, unit: &str, result: &str, sender: &str) -> Vec<u8> {
    let body = [Value::U32(1), Value::Path(job.into()), Value::text(unit), Value::text(result)];
    answer(wire::SIGNAL, vec![(3, Value::text("JobRemoved")), (7, Value::text(sender))], &body)
}

#[test]
fn the_end_of_a_job_may_be_told_before_the_answer() {
    let end = removed("/job/1", "a.scope", "done", ":1");
    let others = [
        removed("/job/2", "a.scope", "failed", ":1"),
        removed("/job/1", "b.scope", "failed", ":1"),
        removed("/job/1", "a.scope", "failed", ":2"),
    ];
    for words in [[others.concat(), end.clone(), reply(1)], [others.concat(), reply(1), end]] {
        let (mut bus, _peer) = after(&words);
        assert_eq!(bus.job(manager("StopUnit"), &[]).unwrap(), "done");
    }
}

#[test]
fn a_peer_that_stalls_is_given_up() {
    let (mut bus, _peer) = after(&[reply(1)]);
    let error = bus.job(manager("StopUnit"), &[]).unwrap_err();
    assert!(matches!(&error, Failure::Io(error) if error.kind() == io::ErrorKind::TimedOut), "{error:?}");
    let (mut bus, _peer) = after(&[]);
    let error = bus.call(manager("StopUnit"), &[Value::text("x".repeat(60_000))]).unwrap_err();
    assert!(matches!(&error, Failure::Io(error) if error.kind() == io::ErrorKind::TimedOut), "{error:?}");
}

#[test]
fn a_refusal_is_told_in_systemds_words() {
    let fields = vec![(5, Value::U32(1)), (4, Value::text("x.NoSuchUnit"))];
    let (mut bus, _peer) = after(&[answer(wire::ERROR, fields, &[Value::text("Unit a.scope not loaded.")])]);
    let error = bus.call(manager("StopUnit"), &[]).unwrap_err();
    assert!(error.is("x.NoSuchUnit"));
    assert_eq!(error.to_string(), "x.NoSuchUnit: Unit a.scope not loaded.");
}

#[test]
fn a_peer_that_goes_or_talks_nonsense_is_an_error() {
    let (mut bus, peer) = after(&[]);
    drop(peer);
    bus.call(manager("StopUnit"), &[]).unwrap_err();
    let (mut bus, _peer) = after(&[vec![0xff; 64]]);
    bus.call(manager("StopUnit"), &[]).unwrap_err();
    for (words, is_welcome) in [
        ("DATA\r\nOK 0123\r\nl", true),
        ("OK 0123\r\n", true),
        ("REJECTED EXTERNAL\r\n", false),
        ("ERROR\r\n", false),
    ] {
        let (mut bus, _peer) = after(&[words.into()]);
        assert_eq!(bus.shake_hands().is_ok(), is_welcome, "{words}");
    }
    let (mut bus, _peer) = after(&[vec![b'x'; 2 * MAX_HANDSHAKE]]);
    bus.shake_hands().unwrap_err();
}
