//! What the probe is told to do, and how each result is shown.
//!
//! The numbers (functions, phases, argument tags) are those at the head of tests/probe/probe.wat. Each call has a label, which is what
//! a trace shows, and a [`Show`], which says what of the result must be equal: most are compared to the byte, a clock only by length.

/// When a block of a program runs; the same numbers name the callbacks in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Phase {
    ContextCreate = 1,
    RequestHeaders = 2,
    RequestBody = 3,
    RequestTrailers = 4,
    ResponseHeaders = 5,
    ResponseBody = 6,
    ResponseTrailers = 7,
    Log = 8,
    Done = 9,
    Delete = 10,
    CallResponse = 11,
    Tick = 12,
    QueueReady = 13,
    VmStart = 14,
    Configure = 15,
    ForeignFunction = 16,
    GrpcClose = 17,
}

impl Phase {
    pub(crate) const ALL: [Self; 17] = [
        Self::ContextCreate,
        Self::RequestHeaders,
        Self::RequestBody,
        Self::RequestTrailers,
        Self::ResponseHeaders,
        Self::ResponseBody,
        Self::ResponseTrailers,
        Self::Log,
        Self::Done,
        Self::Delete,
        Self::CallResponse,
        Self::Tick,
        Self::QueueReady,
        Self::VmStart,
        Self::Configure,
        Self::ForeignFunction,
        Self::GrpcClose,
    ];

    /// The phases of a stream in which a program can run, in the order of a POST with trailers both ways.
    pub(crate) const OF_A_STREAM: [Self; 9] = [
        Self::RequestHeaders,
        Self::RequestBody,
        Self::RequestTrailers,
        Self::ResponseHeaders,
        Self::ResponseBody,
        Self::ResponseTrailers,
        Self::Log,
        Self::Done,
        Self::Delete,
    ];

    pub(crate) fn name(self) -> String {
        let mut name = String::new();
        for character in format!("{self:?}").chars() {
            if character.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(character.to_ascii_lowercase());
        }
        name
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Argument {
    Number(u32),
    Text(Vec<u8>),
    Cell,
    Result,
    Register(u8),
    Wide(u64),
    Context,
    Stream,
    Iovec(Vec<u8>),
}

/// What of a call's results a trace shows. The status is always shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Bytes as text, numbers as they are.
    Exact,
    /// Header pairs, without those each proxy adds of its own.
    Pairs,
    /// Whether something was written, and how long it is.
    Length,
    /// Whether something was written.
    Presence,
    /// An id, as the how-manieth different one of this program.
    Id,
    /// `host:port` without the port.
    Host,
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: u8,
    pub(crate) label: String,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) show: Show,
}

impl Call {
    pub(crate) fn shown(mut self, show: Show) -> Self {
        self.show = show;
        self
    }

    pub(crate) fn labelled(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Call(Call),
    /// What this callback returns: 0 continue, 1 pause.
    Return(u8),
    /// The same, while the stream has not ended.
    ReturnUntilEnd(u8),
    /// Keeps the first number the last call gave.
    Save(u8),
    Trap,
    /// The rest of the block only when the stream has ended.
    OnlyAtEnd,
    /// The rest of the block only the first time.
    OnlyOnce,
}

impl From<Call> for Step {
    fn from(call: Call) -> Self {
        Self::Call(call)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    blocks: Vec<(Phase, Vec<Step>)>,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Runs these steps in this phase (each phase at most once).
    pub(crate) fn at(
        mut self,
        phase: Phase,
        steps: impl IntoIterator<Item = impl Into<Step>>,
    ) -> Self {
        assert!(
            self.blocks.iter().all(|(other, _)| *other != phase),
            "two blocks for {phase:?}"
        );
        self.blocks
            .push((phase, steps.into_iter().map(Into::into).collect()));
        self
    }

    /// The `index`th call of a phase's block.
    pub(crate) fn call(&self, phase: u32, index: usize) -> Option<&Call> {
        let (_, steps) = self
            .blocks
            .iter()
            .find(|(other, _)| *other as u32 == phase)?;
        steps
            .iter()
            .filter_map(|step| {
                if let Step::Call(call) = step {
                    Some(call)
                } else {
                    None
                }
            })
            .nth(index)
    }

    /// Whether this phase's block can answer with a pause.
    pub(crate) fn pauses(&self, phase: u32) -> bool {
        let mut blocks = self
            .blocks
            .iter()
            .filter(|(other, _)| *other as u32 == phase);
        blocks.any(|(_, steps)| {
            steps
                .iter()
                .any(|step| matches!(step, Step::Return(1) | Step::ReturnUntilEnd(1)))
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// As the probe takes it: hexadecimal.
    pub(crate) fn encode(&self) -> String {
        let mut bytes = Vec::new();
        for (phase, steps) in &self.blocks {
            let mut block = Vec::new();
            steps.iter().for_each(|step| encode_step(step, &mut block));
            bytes.push(*phase as u8);
            bytes.extend(
                u16::try_from(block.len())
                    .expect("a block fits in 64 KiB")
                    .to_le_bytes(),
            );
            bytes.extend(block);
        }
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn encode_step(step: &Step, out: &mut Vec<u8>) {
    match step {
        Step::Return(action) => out.extend([100, *action]),
        Step::ReturnUntilEnd(action) => out.extend([101, *action]),
        Step::Save(register) => out.extend([102, *register]),
        Step::Trap => out.push(103),
        Step::OnlyAtEnd => out.push(104),
        Step::OnlyOnce => out.push(105),
        Step::Call(call) => {
            out.extend([
                call.function,
                u8::try_from(call.arguments.len()).expect("few arguments"),
            ]);
            call.arguments
                .iter()
                .for_each(|argument| encode_argument(argument, out));
        }
    }
}

fn encode_argument(argument: &Argument, out: &mut Vec<u8>) {
    let text = |tag: u8, bytes: &[u8], out: &mut Vec<u8>| {
        out.push(tag);
        out.extend(
            u16::try_from(bytes.len())
                .expect("a text fits in 64 KiB")
                .to_le_bytes(),
        );
        out.extend(bytes);
    };
    match argument {
        Argument::Number(number) => {
            out.push(0);
            out.extend(number.to_le_bytes());
        }
        Argument::Text(bytes) => text(1, bytes, out),
        Argument::Cell => out.push(2),
        Argument::Result => out.push(3),
        Argument::Register(register) => out.extend([4, *register]),
        Argument::Wide(number) => {
            out.push(5);
            out.extend(number.to_le_bytes());
        }
        Argument::Context => out.push(6),
        Argument::Stream => out.push(7),
        Argument::Iovec(bytes) => text(8, bytes, out),
    }
}
