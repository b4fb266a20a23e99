// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! How large the buffers of a channel are and where they lie.

use super::{
    VchanError, GRANTS, LARGE_ORDER, LEFT, LEFT_ORDER, MAX_ORDER, PAGE_ORDER, RIGHT, SMALL_ORDER,
};
use crate::shared::SharedMemory;
use crate::stream::Layout;
use crate::xen::GrantRef;

/// Sizes of the two buffers, as powers of two. Checked: both are possible, and together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    left: u16,
    right: u16,
}

impl Orders {
    /// Buffers of 2^`left` bytes from client to server and 2^`right` back.
    ///
    /// # Errors
    ///
    /// [`VchanError::Orders`] when one is not between 10 and 20, both want the same place in the control page, or
    /// their grants would run into a buffer there.
    pub fn new(left: u16, right: u16) -> Result<Self, VchanError> {
        let orders = Self { left, right };
        let known = SMALL_ORDER..=MAX_ORDER;
        let apart = left != right || left >= PAGE_ORDER;
        let room = match left.min(right) {
            SMALL_ORDER => 1024,
            LARGE_ORDER => 2048,
            _ => crate::shared::PAGE_SIZE,
        };
        if known.contains(&left)
            && known.contains(&right)
            && apart
            && GRANTS + 4 * (orders.left_pages() + orders.right_pages()) <= room
        {
            Ok(orders)
        } else {
            Err(VchanError::Orders { left, right })
        }
    }

    /// The smallest buffers of at least so many bytes, in the control page where possible; `None` when one is above
    /// 1 MiB. The choice is libxenvchan's.
    pub fn at_least(left: usize, right: usize) -> Option<Self> {
        const SMALL: usize = 1 << SMALL_ORDER;
        const LARGE: usize = 1 << LARGE_ORDER;
        let paged = |bytes: usize| {
            let order = (bytes.max(1).checked_next_power_of_two()?.ilog2() as u16).max(PAGE_ORDER);
            (order <= MAX_ORDER).then_some(order)
        };
        let (left_paged, right_paged) = (paged(left)?, paged(right)?);
        let (left, right) = if left <= SMALL && right <= LARGE {
            (SMALL_ORDER, LARGE_ORDER)
        } else if left <= LARGE && right <= SMALL {
            (LARGE_ORDER, SMALL_ORDER)
        } else if left <= LARGE {
            (LARGE_ORDER, right_paged)
        } else if right <= LARGE {
            (left_paged, LARGE_ORDER)
        } else {
            (left_paged, right_paged)
        };
        Some(Self { left, right })
    }

    /// Reads what the server wrote into the control page.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn read<C: SharedMemory>(control: &C) -> Result<Self, VchanError> {
        let word = control.load_acquire(LEFT_ORDER);
        Self::new(word as u16, (word >> 16) as u16)
    }

    /// Order of the buffer from client to server.
    pub const fn left(&self) -> u16 {
        self.left
    }

    /// Order of the buffer from server to client.
    pub const fn right(&self) -> u16 {
        self.right
    }

    /// Pages of the left buffer; none when it lies in the control page.
    pub const fn left_pages(&self) -> usize {
        pages(self.left)
    }

    /// Pages of the right buffer; none when it lies in the control page.
    pub const fn right_pages(&self) -> usize {
        pages(self.right)
    }

    /// Reads the grant of the page of this number from the control page: those of the left buffer first.
    pub fn grant<C: SharedMemory>(&self, control: &C, page: usize) -> Option<GrantRef> {
        (page < self.left_pages() + self.right_pages())
            .then(|| GrantRef(control.load(GRANTS + 4 * page)))
    }

    pub(super) fn left_layout(&self) -> Layout {
        layout(LEFT, self.left)
    }

    pub(super) fn right_layout(&self) -> Layout {
        layout(RIGHT, self.right)
    }
}

/// Pages of a buffer of this order.
const fn pages(order: u16) -> usize {
    if order < PAGE_ORDER {
        0
    } else {
        1 << (order - PAGE_ORDER)
    }
}

const fn layout(index: usize, order: u16) -> Layout {
    let data = match order {
        SMALL_ORDER => 1024,
        LARGE_ORDER => 2048,
        _ => 0,
    };
    Layout { cons: index, prod: index + 4, data, size: 1 << order }
}
