//! State directories whose processes are all gone, as after a restart of the machine, or a few of them.

use super::folder::{Folder, Jobs, Record};
use super::warden::jobs_folder;
use super::{Found, JobKey, Keepers, WardenLink};
use crate::config::BaseEnvironment;
use crate::incarnation::Incarnation;
use crate::session::{SessionLimits, Sessions};
use crate::sys::boot_id;

/// A process that is over.
fn gone() -> Incarnation {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let one = Incarnation::now(i32::try_from(child.id()).unwrap()).unwrap();
    child.wait().unwrap();
    one
}

fn job(jobs: &Jobs, note: &[u8], boot_id: [u8; 16], keeper: Incarnation, leader: Incarnation) -> JobKey {
    let key = JobKey::random().unwrap();
    let folder = jobs.make(key).unwrap();
    drop(folder.listen().unwrap());
    let record = Record {
        boot_id,
        keeper,
        leader: None,
        note: note.to_vec(),
        session: Vec::new(),
        enclosure: None,
        detached: None,
    };
    Folder::add_leader(folder.write(&record).unwrap(), leader).unwrap();
    key
}

#[test]
fn each_job_whose_processes_are_gone_is_found_lost_and_none_stays_for_ever() {
    let state = tempfile::tempdir().unwrap();
    let jobs = Jobs::open(&jobs_folder(state.path())).unwrap();
    let here = boot_id().unwrap();
    // Numbers of before the restart are others' now: here, this very process', and that of a child.
    let mut bystander = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let its = Incarnation::now(i32::try_from(bystander.id()).unwrap()).unwrap();
    let own = Incarnation::now(i32::try_from(std::process::id()).unwrap()).unwrap();
    let rebooted = job(&jobs, b"of before", [7; 16], own, its);
    let killed = job(&jobs, b"of now", here, gone(), gone());
    // Nothing of this one has run: its keeper came to no record.
    jobs.make(JobKey::random().unwrap()).unwrap();

    let sessions = Sessions::new(BaseEnvironment::default(), SessionLimits::default());
    let keepers = Keepers::new(WardenLink::to_nobody(), state.path()).unwrap();
    let mut lost: Vec<(JobKey, Vec<u8>, bool)> = keepers
        .found(&sessions)
        .unwrap()
        .into_iter()
        .map(|found| match found {
            Found::Lost { key, note, rebooted } => (key, note, rebooted),
            Found::Kept { key, .. } | Found::Silent { key } => panic!("{key} is taken for one that runs"),
        })
        .collect();
    lost.sort_by_key(|(_, _, rebooted)| *rebooted);
    assert_eq!(lost, [(killed, b"of now".to_vec(), false), (rebooted, b"of before".to_vec(), true)]);

    keepers.forget(rebooted);
    keepers.forget(killed);
    assert!(keepers.found(&sessions).unwrap().is_empty() && jobs.all().unwrap().is_empty());
    assert!(its.is_alive(), "a number of before the restart is nobody's");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn what_somebody_was_killed_over_is_done_with_at_once_and_what_is_being_written_holds_nobody_up() {
    let state = tempfile::tempdir().unwrap();
    let jobs = Jobs::open(&jobs_folder(state.path())).unwrap();
    // A forgotten job, half removed: its record is gone, and its output is there.
    let half = JobKey::random().unwrap();
    let path = jobs_folder(state.path()).join(half.to_string());
    jobs.make(half).unwrap();
    std::fs::write(path.join("stdout"), "printed").unwrap();
    std::fs::write(path.join("outcome"), "").unwrap();
    // One whose record is being written, or never was.
    let begun = JobKey::random().unwrap();
    jobs.make(begun).unwrap();
    std::fs::write(jobs_folder(state.path()).join(begun.to_string()).join("record"), "").unwrap();

    let sessions = Sessions::new(BaseEnvironment::default(), SessionLimits::default());
    let keepers = Keepers::new(WardenLink::to_nobody(), state.path()).unwrap();
    let found = keepers.found(&sessions).unwrap();
    assert!(matches!(found.as_slice(), [Found::Silent { key }] if *key == begun), "{found:?}");
    assert!(!path.exists());
    assert_eq!(jobs.all().unwrap(), [begun]);
}
