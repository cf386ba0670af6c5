//! Keeps the kernel's own stack from what an interface receives, so that it is forwarded once.

use aya::Ebpf;
use aya::programs::tc::qdisc_add_clsact;
use aya::programs::{SchedClassifier, TcAttachType};

use crate::port::PortError;

/// The compiled `barrier.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/barrier.bpf.o"));

/// A program on an interface's way in that drops everything; gone when this is dropped. From Linux 6.6 on
/// it goes with the process, however that ends; before, it stays with the interface after a kill, until
/// the next one is attached or the interface goes.
#[derive(Debug)]
pub(super) struct Barrier {
    _ebpf: Ebpf,
}

impl Barrier {
    pub(super) fn attach(interface: &str) -> Result<Self, PortError> {
        let failed = |reason: String| PortError::Steering {
            interface: interface.to_owned(),
            reason,
        };
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| failed(error.to_string()))?;
        let program = ebpf
            .program_mut("keep_out")
            .ok_or_else(|| failed("the object has no program 'keep_out'".to_owned()))?;
        let program: &mut SchedClassifier = program
            .try_into()
            .map_err(|error| failed(format!("{error}")))?;
        program
            .load()
            .map_err(|error| failed(format!("the program cannot be loaded: {error}")))?;
        // Needed before Linux 6.6, where programs hang on a queueing discipline; it may be there.
        let discipline = qdisc_add_clsact(interface);
        program
            .attach(interface, TcAttachType::Ingress)
            .map_err(|error| match discipline {
                Ok(()) => failed(format!("the program cannot be attached: {error}")),
                Err(first) => failed(format!("the program cannot be attached: {error}; {first}")),
            })?;
        Ok(Self { _ebpf: ebpf })
    }
}
