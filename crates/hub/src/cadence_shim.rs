#[derive(Debug, Default)]
pub(crate) struct Cadence;
impl Cadence {
    pub(crate) fn heard(&mut self, _: u64) {}
    pub(crate) fn interval_ms(&self) -> Option<u64> { None }
    pub(crate) fn phi(&self, _: u64) -> Option<f64> { None }
    pub(crate) fn silence_ms(&self, _: f64) -> Option<u64> { None }
}
