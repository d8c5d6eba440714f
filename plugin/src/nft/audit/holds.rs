//! How far a condition holds for a kind of packets.

/// How far a condition holds for a kind of packets.
///
/// In the order of how much is certain to pass: of two conditions, both hold as far as the lesser does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Holds {
    /// For none of them.
    Never,
    /// On what is not known here, as a mark that something else sets.
    Unknown,
    /// For some of them, as those of a protocol.
    Perhaps,
    /// For all of them.
    Always,
}

impl Holds {
    pub(super) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.max(other)
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Never => Self::Always,
            Self::Always => Self::Never,
            other => other,
        }
    }

    pub(super) fn any(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::Never, Self::or)
    }

    pub(super) fn all(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::Always, Self::and)
    }
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Always } else { Self::Never }
    }
}
