//! Whether a site asks for certificates of clients, and whose.

/// SHA-256 of a file of CAs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CaMark(pub [u8; 32]);

/// What a site asks of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Demand {
    Nothing,
    /// A client certificate that was verified under these CAs.
    Certificate(CaMark),
    /// A certificate, but the CAs cannot be read: nobody comes in.
    Impossible,
}
