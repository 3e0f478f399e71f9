"""The seed programs, one `.dna` file each; `seeds` reads them."""
