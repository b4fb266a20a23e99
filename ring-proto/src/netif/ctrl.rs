// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The control ring: how received packets are hashed and spread over queues, and grants that stay mapped.

use core::mem::size_of;

use super::wire::{RawCtrlRequest, RawCtrlResponse, RawGref};
use super::HashType;
use crate::shared::PAGE_SIZE;
use crate::xen::GrantRef;

/// Declares the request types, their numbers and names.
macro_rules! types {
    ($($(#[$meta:meta])* $name:ident = $value:literal, $wire:literal;)*) => {
        /// What a control request asks for (`XEN_NETIF_CTRL_TYPE_*`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum CtrlType {
            $(#[doc = concat!("`", $wire, "`.")] $name = $value,)*
        }

        impl CtrlType {
            /// The type with this number.
            pub const fn from_raw(raw: u16) -> Option<Self> {
                match raw { $($value => Some(Self::$name),)* _ => None }
            }

            /// Its name in `netif.h`, without `XEN_NETIF_CTRL_TYPE_`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $wire,)* }
            }
        }
    };
}

types! {
    GetHashFlags = 1, "GET_HASH_FLAGS";
    SetHashFlags = 2, "SET_HASH_FLAGS";
    SetHashKey = 3, "SET_HASH_KEY";
    GetHashMappingSize = 4, "GET_HASH_MAPPING_SIZE";
    SetHashMappingSize = 5, "SET_HASH_MAPPING_SIZE";
    SetHashMapping = 6, "SET_HASH_MAPPING";
    SetHashAlgorithm = 7, "SET_HASH_ALGORITHM";
    GetGrefMappingSize = 8, "GET_GREF_MAPPING_SIZE";
    AddGrefMapping = 9, "ADD_GREF_MAPPING";
    DelGrefMapping = 10, "DEL_GREF_MAPPING";
}

/// What became of a control request (`XEN_NETIF_CTRL_STATUS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CtrlStatus {
    /// Done.
    Success = 0,
    /// This backend does not have it.
    NotSupported = 1,
    /// A value is not legal.
    InvalidParameter = 2,
    /// A value is larger than this backend can hold.
    BufferOverflow = 3,
}

impl CtrlStatus {
    /// The status with this number.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Self::Success),
            1 => Some(Self::NotSupported),
            2 => Some(Self::InvalidParameter),
            3 => Some(Self::BufferOverflow),
            _ => None,
        }
    }
}

/// How hashes are taken (`XEN_NETIF_CTRL_HASH_ALGORITHM_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Algorithm {
    /// Not at all; the backend spreads packets as it likes.
    None = 0,
    /// Toeplitz.
    Toeplitz = 1,
}

/// A list of grants in a page, each entry a [`RawGref`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grefs {
    /// Index of the queue that they are for.
    pub queue: u32,
    /// The page with the list.
    pub list: GrantRef,
    /// Entries in it, as many as a page holds or fewer.
    pub count: u16,
}

/// What a frontend asks for, of legal form. Queues, and sizes beyond a page's, are the backend's to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtrlCall {
    /// Which hash types there are.
    GetHashFlags,
    /// Take these, a set of [`HashType::bit`]; none to stop.
    SetHashFlags(u32),
    /// Use the key of `size` bytes, at most a page, at the beginning of the page.
    SetHashKey {
        /// The page.
        page: GrantRef,
        /// Bytes of the key.
        size: u16,
    },
    /// How many entries the table of queues can have.
    GetHashMappingSize,
    /// Make a table of so many entries, all zero; zero to spread by the remainder.
    SetHashMappingSize(u32),
    /// Copy entries of four bytes into the table.
    SetHashMapping {
        /// The page with the entries.
        page: GrantRef,
        /// How many, as many as a page holds or fewer.
        count: u16,
        /// Index of the first in the table; `first + count` does not overflow.
        first: u32,
    },
    /// Take hashes so.
    SetHashAlgorithm(Algorithm),
    /// How many grants the backend keeps mapped for the queue of this index.
    GetGrefMappingSize(u32),
    /// Keep these mapped: all or none.
    AddGrefMapping(Grefs),
    /// Unmap these; each entry gets its own status.
    DelGrefMapping(Grefs),
}

/// A control request of legal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtrlRequest {
    /// The frontend's own value.
    pub id: u16,
    /// What is asked for.
    pub call: CtrlCall,
}

/// A control request to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCtrlRequest {
    /// The frontend's own value.
    pub id: u16,
    /// Number of the type.
    pub kind: u16,
    /// The values with it.
    pub data: [u32; 3],
    /// What to answer.
    pub status: CtrlStatus,
}

impl core::fmt::Display for BadCtrlRequest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { id, kind, data, status } = self;
        let name = CtrlType::from_raw(*kind).map_or("unknown", CtrlType::name);
        write!(f, "control request {id} of type {kind} ({name}) with values {data:x?} refused: {status:?}")
    }
}

impl core::error::Error for BadCtrlRequest {}

impl CtrlCall {
    /// Its type.
    pub const fn kind(&self) -> CtrlType {
        match self {
            Self::GetHashFlags => CtrlType::GetHashFlags,
            Self::SetHashFlags(_) => CtrlType::SetHashFlags,
            Self::SetHashKey { .. } => CtrlType::SetHashKey,
            Self::GetHashMappingSize => CtrlType::GetHashMappingSize,
            Self::SetHashMappingSize(_) => CtrlType::SetHashMappingSize,
            Self::SetHashMapping { .. } => CtrlType::SetHashMapping,
            Self::SetHashAlgorithm(_) => CtrlType::SetHashAlgorithm,
            Self::GetGrefMappingSize(_) => CtrlType::GetGrefMappingSize,
            Self::AddGrefMapping(_) => CtrlType::AddGrefMapping,
            Self::DelGrefMapping(_) => CtrlType::DelGrefMapping,
        }
    }
}

/// `count` if that many elements of `T` fit in a page.
fn in_page<T>(count: u32) -> Option<u16> {
    u16::try_from(count).ok().filter(|count| usize::from(*count) * size_of::<T>() <= PAGE_SIZE)
}

impl RawCtrlRequest {
    /// Judges what a frontend wrote.
    ///
    /// # Errors
    ///
    /// [`BadCtrlRequest`] with the status to answer.
    pub fn check(&self) -> Result<CtrlRequest, BadCtrlRequest> {
        let refuse =
            |status| BadCtrlRequest { id: self.id, kind: self.kind, data: self.data, status };
        let kind = CtrlType::from_raw(self.kind).ok_or(refuse(CtrlStatus::NotSupported))?;
        let call = self.call(kind).map_err(refuse)?;
        Ok(CtrlRequest { id: self.id, call })
    }

    fn call(&self, kind: CtrlType) -> Result<CtrlCall, CtrlStatus> {
        let [first, second, third] = self.data;
        let invalid = CtrlStatus::InvalidParameter;
        let grefs = || {
            let count = in_page::<RawGref>(third).ok_or(invalid)?;
            Ok(Grefs { queue: first, list: GrantRef(second), count })
        };
        Ok(match kind {
            CtrlType::GetHashFlags => CtrlCall::GetHashFlags,
            CtrlType::SetHashFlags => {
                const ALL: u32 = HashType::Ipv4.bit()
                    | HashType::Ipv4Tcp.bit()
                    | HashType::Ipv6.bit()
                    | HashType::Ipv6Tcp.bit();
                if first & !ALL != 0 {
                    return Err(invalid);
                }
                CtrlCall::SetHashFlags(first)
            }
            CtrlType::SetHashKey => {
                let size = in_page::<u8>(second).ok_or(CtrlStatus::BufferOverflow)?;
                CtrlCall::SetHashKey { page: GrantRef(first), size }
            }
            CtrlType::GetHashMappingSize => CtrlCall::GetHashMappingSize,
            CtrlType::SetHashMappingSize => CtrlCall::SetHashMappingSize(first),
            CtrlType::SetHashMapping => {
                let count = in_page::<u32>(second).ok_or(invalid)?;
                third.checked_add(count.into()).ok_or(invalid)?;
                CtrlCall::SetHashMapping { page: GrantRef(first), count, first: third }
            }
            CtrlType::SetHashAlgorithm => match first {
                0 => CtrlCall::SetHashAlgorithm(Algorithm::None),
                1 => CtrlCall::SetHashAlgorithm(Algorithm::Toeplitz),
                _ => return Err(invalid),
            },
            CtrlType::GetGrefMappingSize => CtrlCall::GetGrefMappingSize(first),
            CtrlType::AddGrefMapping => CtrlCall::AddGrefMapping(grefs()?),
            CtrlType::DelGrefMapping => CtrlCall::DelGrefMapping(grefs()?),
        })
    }
}

impl From<&CtrlRequest> for RawCtrlRequest {
    fn from(request: &CtrlRequest) -> Self {
        let data = match request.call {
            CtrlCall::GetHashFlags | CtrlCall::GetHashMappingSize => [0; 3],
            CtrlCall::SetHashFlags(value)
            | CtrlCall::SetHashMappingSize(value)
            | CtrlCall::GetGrefMappingSize(value) => [value, 0, 0],
            CtrlCall::SetHashAlgorithm(algorithm) => [algorithm as u32, 0, 0],
            CtrlCall::SetHashKey { page, size } => [page.0, size.into(), 0],
            CtrlCall::SetHashMapping { page, count, first } => [page.0, count.into(), first],
            CtrlCall::AddGrefMapping(grefs) | CtrlCall::DelGrefMapping(grefs) => {
                [grefs.queue, grefs.list.0, grefs.count.into()]
            }
        };
        Self { id: request.id, kind: request.call.kind() as u16, data }
    }
}

/// A well-formed control response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtrlResponse {
    /// That of the request, if the backend is honest.
    pub id: u16,
    /// That of the request, if the backend is honest.
    pub kind: CtrlType,
    /// What became of it.
    pub status: CtrlStatus,
    /// What was asked for, if it succeeded and asked for something.
    pub data: u32,
}

/// A control response that no backend may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCtrlResponse {
    /// The id in it.
    pub id: u16,
    /// The number of the type in it.
    pub kind: u16,
    /// The number of the status in it.
    pub status: u32,
}

impl core::fmt::Display for BadCtrlResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { id, kind, status } = self;
        write!(f, "control response {id} of type {kind} with status {status}, which is not legal")
    }
}

impl core::error::Error for BadCtrlResponse {}

impl RawCtrlResponse {
    /// The response to a request of legal form.
    pub fn new(request: &CtrlRequest, status: CtrlStatus, data: u32) -> Self {
        Self { id: request.id, kind: request.call.kind() as u16, status: status as u32, data }
    }

    /// Judges what a backend wrote. A refused request's type may be one that the frontend made up.
    ///
    /// # Errors
    ///
    /// [`BadCtrlResponse`] when no backend may answer so.
    pub fn check(&self) -> Result<CtrlResponse, BadCtrlResponse> {
        match (CtrlType::from_raw(self.kind), CtrlStatus::from_raw(self.status)) {
            (Some(kind), Some(status)) => {
                Ok(CtrlResponse { id: self.id, kind, status, data: self.data })
            }
            _ => Err(BadCtrlResponse { id: self.id, kind: self.kind, status: self.status }),
        }
    }
}

impl From<&BadCtrlRequest> for RawCtrlResponse {
    /// The refusal.
    fn from(bad: &BadCtrlRequest) -> Self {
        Self { id: bad.id, kind: bad.kind, status: bad.status as u32, data: 0 }
    }
}
