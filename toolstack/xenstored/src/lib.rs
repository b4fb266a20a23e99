//! The xenstore: tree, transactions, watches, permissions, and its wire protocol over a Unix socket.
