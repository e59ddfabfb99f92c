//! Every case under `cases/`, by the driver that other crates use for theirs.

use eec::testing::run_cases;
use eec_passes::registry::Registry;
use eec_tests::files::cases_folder;

#[test]
fn cases_hold() {
    run_cases(&cases_folder(), &Registry::builtin());
}
