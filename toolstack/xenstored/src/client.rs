// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the store keeps for one connection.

use std::collections::BTreeMap;

use ring_proto::xen::{DomId, Errno};

use crate::transaction::Transaction;
use crate::tree::Tree;
use crate::watch::Watch;

/// Which connection. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(pub(crate) u64);

/// A connection, as the store sees it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) domid: DomId,
    pub(crate) watches: Vec<Watch>,
    transactions: BTreeMap<u32, Transaction>,
    last_transaction: u32,
}

impl Client {
    pub(crate) fn new(domid: DomId) -> Self {
        Self { domid, watches: Vec::new(), transactions: BTreeMap::new(), last_transaction: 0 }
    }

    /// How many transactions are open.
    pub(crate) fn transactions(&self) -> usize {
        self.transactions.len()
    }

    /// Opens a transaction and returns its id, which is not 0.
    pub(crate) fn start(&mut self, live: &Tree) -> u32 {
        loop {
            self.last_transaction = self.last_transaction.wrapping_add(1);
            let id = self.last_transaction;
            if id != 0 && !self.transactions.contains_key(&id) {
                self.transactions.insert(id, Transaction::new(live));
                return id;
            }
        }
    }

    /// The transaction that a request names, `None` for 0.
    ///
    /// # Errors
    ///
    /// `ENOENT` when none of that id is open.
    pub(crate) fn transaction(&mut self, id: u32) -> Result<Option<&mut Transaction>, Errno> {
        match id {
            0 => Ok(None),
            id => self.transactions.get_mut(&id).map(Some).ok_or(Errno::ENOENT),
        }
    }

    /// Takes a transaction out, to commit or discard it.
    ///
    /// # Errors
    ///
    /// `ENOENT` when none of that id is open.
    pub(crate) fn end(&mut self, id: u32) -> Result<Transaction, Errno> {
        self.transactions.remove(&id).ok_or(Errno::ENOENT)
    }

    /// Drops all watches and transactions.
    pub(crate) fn reset(&mut self) {
        self.watches.clear();
        self.transactions.clear();
    }
}
