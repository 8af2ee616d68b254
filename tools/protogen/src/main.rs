//! Writes the generated file where it is committed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::fs::write(remora_protogen::committed(), remora_protogen::generate()?)?;
    Ok(())
}
