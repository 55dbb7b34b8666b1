"""Stored networks come back as what they were, to half precision, and nothing else is taken for one."""

import pytest
import torch

from course_lib.restoration import Codec, UNet, load_network, save_network


@pytest.mark.parametrize("network", [UNet(4, width=6, depth=1, skip=False, residual=False), UNet(width=4)])
def test_a_stored_network_computes_the_same_to_half_precision(tmp_path, network):
    save_network(network, tmp_path / "net.pt")
    again = load_network(tmp_path / "net.pt")
    x = torch.rand(1, network.settings["in_channels"], 20, 24)
    assert again.settings == network.settings and not again.training
    with torch.no_grad():
        assert torch.allclose(again(x), network(x), atol=0.01)
    assert (tmp_path / "net.pt").stat().st_size < 2.5 * sum(p.numel() for p in network.parameters()) + 15_000


def test_a_stored_codec_keeps_the_tables_of_its_coder_exactly(tmp_path):
    codec = Codec(channels=6, width=4, stride=8)
    codec.freeze()
    save_network(codec, tmp_path / "codec.pt")
    assert torch.equal(load_network(tmp_path / "codec.pt").tables, codec.tables)


def test_what_is_no_network_is_named_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no trained network gausian; there are: .*make bench-restoration"):
        load_network("gausian")
    torch.save({"model": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not a restoration network of this course"):
        load_network(tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is damaged"):
        load_network(tmp_path / "broken.pt")
