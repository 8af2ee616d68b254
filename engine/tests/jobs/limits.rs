//! Limits: what a job may print and use.

use remora_engine::{
    CgroupParent, EndReason, EngineConfig, JobRequest, LimitKind, Limits, MemoryMeans, Outcome, Signal,
};
use remora_testkit::pattern;

use crate::common::{Host, odd, quick};

#[tokio::test]
async fn output_beyond_its_limit_ends_the_job_and_says_so() {
    let host = Host::new(quick());
    let limits = Limits { output: Some(100_000), ..Limits::default() };
    let done = host.start(JobRequest::argv(["yes"]), limits.clone()).unwrap().collect().await;
    assert_eq!(
        done.outcome(),
        Outcome::Signaled {
            signal: Signal::TERM,
            core_dumped: false,
            by: Some(EndReason::Limit(LimitKind::Output))
        }
    );
    assert_eq!(done.stdout.len(), 100_000);
    assert!(done.ended.stdout.cut && !done.ended.stderr.cut);
    // Both streams count together.
    let done = host.start(odd(&["flood", "60000", "60000"]), limits.clone()).unwrap().collect().await;
    // Even where the process was over before that was noticed.
    assert!(matches!(
        done.outcome(),
        Outcome::Signaled { by: Some(EndReason::Limit(LimitKind::Output)), .. }
    ));
    assert!(done.stdout == pattern(60_000));
    assert!(done.stderr == pattern(40_000));
    assert!(done.ended.stderr.cut);
    // Exactly the limit is within it.
    let done = host.start(odd(&["flood", "60000", "40000"]), limits).unwrap().collect().await;
    assert_eq!(done.outcome(), Outcome::Exited(0));
    assert!(!done.ended.stdout.cut && !done.ended.stderr.cut);
}

#[tokio::test]
async fn memory_is_limited_by_the_address_space_where_there_is_no_cgroup() {
    let host = Host::new(quick());
    let limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    let done = host.start(odd(&["burn", "1", "200"]), limits.clone()).unwrap().collect().await;
    assert_eq!(done.ended.memory_limited_by, Some(MemoryMeans::AddressSpace));
    assert_ne!(done.outcome(), Outcome::Exited(0));
    let done = host.start(odd(&["burn", "1", "20"]), limits).unwrap().collect().await;
    assert_eq!(done.outcome(), Outcome::Exited(0));
}

#[tokio::test]
async fn memory_is_limited_by_a_cgroup_where_one_can_be_made() {
    let host = Host::new(EngineConfig { cgroup: CgroupParent::Detect, ..quick() });
    let limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    let done = host.start(odd(&["burn", "1", "200"]), limits).unwrap().collect().await;
    match done.ended.memory_limited_by {
        Some(MemoryMeans::Cgroup) => assert_eq!(
            done.outcome(),
            Outcome::Signaled {
                signal: Signal::KILL,
                core_dumped: false,
                by: Some(EndReason::Limit(LimitKind::Memory))
            }
        ),
        // Not on this machine: the other means is there, and says so.
        other => {
            assert_eq!(other, Some(MemoryMeans::AddressSpace));
            assert_ne!(done.outcome(), Outcome::Exited(0));
        }
    }
    let done = host.run(JobRequest::argv(["true"])).await;
    assert_eq!(done.ended.memory_limited_by, None);
}
