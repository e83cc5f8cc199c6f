//! Nothing but the benchmarks of this package.
