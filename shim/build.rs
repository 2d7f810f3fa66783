//! Makes the messages of `proto/` into Rust, by a generator that is itself Rust: no protoc is needed. Without the
//! runtime's reflection, which nobody here asks for and which would be the larger part of the code.

fn main() {
    println!("cargo:rerun-if-changed=proto");
    let names = [
        "bootstrap",
        "events",
        "forward",
        "metrics_v1",
        "metrics_v2",
        "runc",
        "runtimeoptions",
        "task",
        "types",
    ];
    protobuf_codegen::Codegen::new()
        .pure()
        .include("proto")
        .inputs(names.map(|name| format!("proto/{name}.proto")))
        .customize(protobuf_codegen::Customize::default().lite_runtime(true).generate_accessors(false))
        .cargo_out_dir("proto")
        .run_from_script();
}
