"""The arithmetic of P-256 in firmware/, as it is in the image, called in the emulator."""

import pytest

from tests.virtual_pico import arithmetic
from tools import firmware as builder

FLASH = 0x1000_0000
_NOP = (0x46C0).to_bytes(2, "little")
_POP = (0xBDF0).to_bytes(2, "little")  # pop {r4-r7, pc}, with which each of them ends

# RFC 6979, A.2.5
_PRIVATE = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
_PUBLIC = (
    "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
)
_SIGNED = [
    (
        "SHA-256",
        b"sample",
        "a6e3c57dd01abe90086538398355dd4c3b17aa873382b0f24d6129493d8aad60",
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    ),
    (
        "SHA-256",
        b"test",
        "d16b6ae827f17175e040871a1c7ec3500192c4c92677336ec2537acaee0008e0",
        "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
        "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
    ),
    (
        "SHA-512",
        b"sample",
        "5fa81c63109badb88c1f367b47da606da28cad69aa22c4fe6ad7df73a7173aa5",
        "8496a60b5e9b47c825488827e0495b0e3fa109ec4568fd3f8d1097678eb97f00",
        "2362ab1adbe2b8adf9cb9edab740ea6049c028114f2460f96554f61fae3302fe",
    ),
]
# private key, public key of the other one, what both have: NIST's CAVS for ECC CDH, the first of
# P-256; RFC 5903, 8.1
_AGREED = [
    (
        "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534",
        "700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287"
        "db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac",
        "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b",
    ),
    (
        "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
        "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
        "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    ),
]
_KEY_INFO = "3059301306072a8648ce3d020106082a8648ce3d03010703420004"  # RFC 5480, before x and y


def _groups():
    """Return the vectors in the form of Wycheproof's files, wrong ones among them."""
    order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
    groups = []
    for number, (sha, message, k, r, s) in enumerate(_SIGNED):
        common = {"tcId": number, "msg": message.hex()}
        signing = {**common, "private": _PRIVATE, "k": k, "sig": r + s, "result": "valid"}
        groups.append({"type": "EcdsaSign", "sha": sha, "tests": [signing]})
        verifying = [{**common, "sig": arithmetic.der(r, s), "result": "valid"}]
        if number == 0:
            wrong = [(s, r), (r, s[:-1] + "9"), ("0", s), (r, "0"), (order, s), (r, order)]
            verifying += [
                {**common, "sig": arithmetic.der(a.zfill(64), b.zfill(64)), "result": "invalid"}
                for a, b in wrong
            ]
        key = {"publicKeyDer": _KEY_INFO + _PUBLIC}
        groups.append({"type": "EcdsaVerify", "sha": sha, "tests": verifying, **key})
    agreeing = [
        {"private": private, "public": f"04{public}", "shared": shared, "result": "valid"}
        for private, public, shared in _AGREED
    ]
    private, public, shared = _AGREED[0]
    beside = public[:-1] + "d"  # no point of the curve
    agreeing.append({**agreeing[0], "public": f"04{beside}", "result": "invalid"})
    groups.append({"type": "EcdhEcpointTest", "tests": agreeing})
    return groups


def test_products_squares_reductions_and_inverses_are_mbedtls_and_take_one_time(steps_firmware):
    compared = arithmetic.compare(steps_firmware, groups=_groups())
    assert compared["products"] >= 2000
    assert compared["reductions"] >= 5000
    assert compared["edges"] > 2000
    assert compared["squares"] >= 1000 + compared["edges"]
    assert compared["inverses"] == 20
    assert compared["shapes"] > 1000
    assert compared["vectors"] == 15
    cycles = compared["cycles"]
    assert cycles["p256_sqr"] < cycles["p256_mul"] < 1800
    assert cycles["modulo_p"] < 550


@pytest.mark.parametrize("name", ["p256_mul", "p256_sqr", "p256_reduce"])
def test_one_wrong_instruction_is_noticed(steps_firmware, tmp_path, name):
    image = bytearray(steps_firmware.read_bytes())
    begin = (builder.symbols(steps_firmware)[name] & ~1) - FLASH
    # of the additions of a carry (adcs r4, r5 or adcs r7, r4) the one in the middle is left out
    adcs = {"p256_reduce": 0x416C}.get(name, 0x4167).to_bytes(2, "little")
    code = image[begin : image.index(_POP, begin)]
    places = [at for at in range(0, len(code), 2) if code[at : at + 2] == adcs]
    at = begin + places[len(places) // 2]
    image[at : at + 2] = _NOP
    broken = tmp_path / "firmware.bin"
    broken.write_bytes(image)
    broken.with_suffix(".elf").write_bytes(steps_firmware.with_suffix(".elf").read_bytes())
    with pytest.raises(arithmetic.Differs, match="product|square|reduction"):
        arithmetic.compare(broken)
