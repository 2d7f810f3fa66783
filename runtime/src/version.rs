//! What this is a version of.

/// The version of the runtime specification that Coracle follows.
pub const SPEC_VERSION: &str = "1.3.0";
/// The version of Coracle.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that this was built from, where the build named it.
pub const COMMIT: Option<&str> = option_env!("CORACLE_COMMIT");
