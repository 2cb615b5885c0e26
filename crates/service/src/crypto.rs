//! The one choice of a TLS implementation: ring, for everything that speaks TLS in the process.

/// Makes ring the process's TLS provider; `main` calls it first, and calling it again is harmless.
pub fn install_crypto() {
    // An error means that a provider is there already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
