"""A small genomics sample, the same on every machine: reference, reads with an index, variants.

Used by `scripts/demo.py`. Two made-up chromosomes; 100,000 reads of a diploid individual whose differences
from the reference are in `variants.vcf`. samtools sorts and indexes; without it the reads stay text (SAM).
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

SEED = 20240
CHROMOSOMES = {"chr1": 1_000_000, "chr2": 500_000}
READS = 100_000
READ_LENGTH = 150
SNP_DISTANCE = 1000
"""Bases, on average, between two variants."""
ERROR_RATE = 0.002
LINE = 60
"""Bases on a line of FASTA."""

Variant = tuple[str, int, str, str, str]
"""chromosome, position from 1, reference base, other base, genotype as VCF writes it"""


def make(directory: Path) -> list[str]:
    """Fill `directory` (which must be empty); gives the names of the files."""
    rng = random.Random(SEED)
    reference = {name: "".join(rng.choices("ACGT", k=length)) for name, length in CHROMOSOMES.items()}
    variants = _variants(rng, reference)
    _write_fasta(directory / "reference.fa", reference)
    _write_vcf(directory / "variants.vcf", variants)
    _write_sam(directory / "reads.sam", rng, reference, variants)
    if shutil.which("samtools"):
        _samtools(directory, "faidx", "reference.fa")
        _samtools(directory, "sort", "-o", "reads.bam", "reads.sam")
        _samtools(directory, "index", "reads.bam")
        (directory / "reads.sam").unlink()
    (directory / "README.txt").write_text(
        "A made-up genome of 1.5 million bases, reads of one individual, and where it differs from it.\n"
        f"Generated from the seed {SEED}: the same on every machine.\n"
    )
    return sorted(path.name for path in directory.iterdir())


def _samtools(directory: Path, *arguments: str) -> None:
    subprocess.run(["samtools", *arguments], cwd=directory, check=True, stderr=subprocess.DEVNULL)


def _variants(rng: random.Random, reference: dict[str, str]) -> list[Variant]:
    found = []
    for name, bases in reference.items():
        for position in sorted(rng.sample(range(len(bases)), len(bases) // SNP_DISTANCE)):
            other = rng.choice([base for base in "ACGT" if base != bases[position]])
            found.append((name, position + 1, bases[position], other, rng.choice(["0|1", "1|0", "1|1"])))
    return found


def _write_fasta(path: Path, reference: dict[str, str]) -> None:
    with path.open("w") as out:
        for name, bases in reference.items():
            out.write(f">{name}\n")
            out.writelines(bases[start : start + LINE] + "\n" for start in range(0, len(bases), LINE))


def _write_vcf(path: Path, variants: list[Variant]) -> None:
    with path.open("w") as out:
        out.write("##fileformat=VCFv4.2\n")
        out.writelines(f"##contig=<ID={name},length={length}>\n" for name, length in CHROMOSOMES.items())
        out.write('##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n')
        out.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tsample\n")
        out.writelines(
            f"{c}\t{at}\t.\t{ref}\t{alt}\t60\tPASS\t.\tGT\t{gt}\n" for c, at, ref, alt, gt in variants
        )


def _haplotypes(reference: dict[str, str], variants: list[Variant]) -> dict[str, tuple[str, str]]:
    """Both copies of each chromosome, as the individual has them."""
    copies = {name: (list(bases), list(bases)) for name, bases in reference.items()}
    for name, position, _, other, genotype in variants:
        for copy, carries in zip(copies[name], genotype.split("|"), strict=True):
            if carries == "1":
                copy[position - 1] = other
    return {name: ("".join(one), "".join(two)) for name, (one, two) in copies.items()}


def _write_sam(path: Path, rng: random.Random, reference: dict[str, str], variants: list[Variant]) -> None:
    haplotypes = _haplotypes(reference, variants)
    names = list(reference)
    lengths = list(CHROMOSOMES.values())
    qualities = ["".join(rng.choices("FFFFFF:,", k=READ_LENGTH)) for _ in range(64)]
    with path.open("w") as out:
        out.write("@HD\tVN:1.6\tSO:unsorted\n")
        out.writelines(f"@SQ\tSN:{name}\tLN:{length}\n" for name, length in CHROMOSOMES.items())
        out.write("@RG\tID:rg1\tSM:sample\tPL:ILLUMINA\n")
        for number in range(READS):
            name = rng.choices(names, lengths)[0]
            start = rng.randrange(len(reference[name]) - READ_LENGTH)
            read = rng.choice(haplotypes[name])[start : start + READ_LENGTH]
            if rng.random() < ERROR_RATE * READ_LENGTH:
                at = rng.randrange(READ_LENGTH)
                read = read[:at] + rng.choice("ACGT") + read[at + 1 :]
            out.write(
                f"read{number:06d}\t{rng.choice((0, 16))}\t{name}\t{start + 1}\t60\t{READ_LENGTH}M\t*\t0\t0\t"
                f"{read}\t{rng.choice(qualities)}\tRG:Z:rg1\n"
            )
