//! Which FFNs of real models can have gates.
use eec::model::simplified;
use eec::onnx::import;
use eec_passes::ffn_gates::candidates;
use eec_passes::structure::analyse;
use eec_tests::shared::shared_folder;

#[test]
fn look() {
    let Some(folder) = shared_folder() else { return };
    let models = folder.join("models");
    for dir in std::fs::read_dir(&models).unwrap() {
        let dir = dir.unwrap().path();
        if !dir.is_dir() {
            continue;
        }
        for f in std::fs::read_dir(&dir).unwrap() {
            let f = f.unwrap().path();
            if f.extension().is_none_or(|e| e != "onnx") {
                continue;
            }
            let Ok(g) = import(&f) else {
                println!("{} import fails", f.display());
                continue;
            };
            let g = simplified(g).unwrap();
            match analyse(&g) {
                Ok(s) => {
                    let c = candidates(&g, &s);
                    let ok = c.iter().filter(|c| c.verdict.is_ok()).count();
                    println!(
                        "{} {}/{} {:?}",
                        f.display(),
                        ok,
                        c.len(),
                        c.iter().find_map(|c| c.verdict.clone().err().map(|e| (c.block, e)))
                    );
                    if let Some(b) = c.iter().find(|c| c.verdict.is_ok()) {
                        let f = s.blocks[b.block].ffn().unwrap();
                        println!("    {} -> ends {}", g.ty(f.input), g.describe(g.def_node(f.output).unwrap()));
                    }
                }
                Err(e) => println!("{} {e}", f.display()),
            }
        }
    }
}
