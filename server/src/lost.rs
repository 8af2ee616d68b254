//! What is said of a job whose keeper is gone: whether and how it ended can't be known.

use remora_wire::native::proto;

/// For whoever asks. `rebooted`: the host was restarted since the job was.
pub(crate) fn told(rebooted: bool) -> proto::NotStarted {
    proto::NotStarted {
        class: proto::NotStartedClass::Unknown as i32,
        step: if rebooted { "reboot" } else { "keeper" }.to_owned(),
        errno: 0,
        text: text(rebooted).to_owned(),
    }
}

/// The outcome of such a job.
pub(crate) fn outcome(rebooted: bool) -> proto::receipt::Outcome {
    proto::receipt::Outcome::NotStarted(told(rebooted))
}

/// The same in words.
pub(crate) fn text(rebooted: bool) -> &'static str {
    if rebooted {
        "lost at reboot: the host was restarted while the command ran, and how far it had come can't be known"
    } else {
        "keeper lost: the process that kept the command was killed, and what could be found of the command is ended"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_when_the_host_went_down_is_lost_at_reboot_and_nothing_is_taken_for_not_started() {
        for (rebooted, start) in [(true, "lost at reboot: "), (false, "keeper lost: ")] {
            let proto::receipt::Outcome::NotStarted(told) = outcome(rebooted) else { panic!("another kind") };
            assert_eq!(told.class, proto::NotStartedClass::Unknown as i32);
            assert!(told.text.starts_with(start), "{}", told.text);
        }
    }
}
