"""Settings as words of a command, which reads them back."""

from __future__ import annotations

import argparse

import pytest

from vitfeat.analyses.attention_maps.settings import AttentionMapSettings
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.residual.settings import ResidualSettings
from vitfeat.analyses.saliency.settings import SaliencySettings
from vitfeat.analyses.settings import Settings
from vitfeat.cli.settings_flags import add_settings, given_settings
from vitfeat.plan.words import setting_flags


@pytest.mark.parametrize(
    "settings",
    [
        AttentionMapSettings(images=2, layer=-1, head=1, smooth=True, percentile=99.5),
        AttentionMapSettings(images=("-a b.png",), layers=("first", -2), positions=("3,4",)),
        AttentionMapSettings(images=("1.png", "2.png"), layers="all", head="mean"),
        AttentionMapSettings(images=("007", "7", "null", "1e3", '"a"')),
        SaliencySettings(images=("one.png",), queries=("cls",)),
        ClusteringSettings(clusters=3, shuffled=False),
        ClusteringSettings(clusters=None, pattern_layers=3),
        ResidualSettings(tokens=(), images=None),
    ],
)
def test_a_command_reads_settings_back_as_the_config_had_them(settings: Settings) -> None:
    keys = [key for key in type(settings).model_fields if key not in ("datasets", "train")]
    parser = argparse.ArgumentParser()
    add_settings(parser, type(settings), keys)
    words = setting_flags({key: getattr(settings, key) for key in keys})
    assert given_settings(parser.parse_args(words), type(settings)) == settings
