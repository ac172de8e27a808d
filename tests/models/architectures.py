"""The list of architectures that are held to the contract, and of those that are refused.

docs/architectures.md holds the same list; test_contract.py compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from timm.models.vitamin import VitCfg, VitConvCfg

#: What most architectures are shrunk by. Grids are 3 x 4 tokens, so that rows are no columns.
SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 4}
GRID = (3, 4)


@dataclass(frozen=True, eq=False)
class Architecture:
    """One architecture, shrunk, with what its description must say.

    Attributes
    ----------
    name
        timm's or open_clip's name.
    shows
        What is special about it.
    n_prefix, has_cls
        Tokens before the grid, and whether the first of them is CLS.
    patch
        Height and width of a patch in pixels.
    source
        timm, open_clip, or ``trunk``: open_clip around a timm model.
    args
        Arguments beside :data:`SMALL`: of the timm model, or of open_clip's `CLIPVisionCfg`.
    heads
        Attention heads of a block.
    grid
        Rows and columns of the token grid.
    image_size
        Height and width, where they are no multiple of the patch.
    has_attention
        Whether its attention can be tapped; its tokens always can.
    is_local
        Whether tokens enter the blocks as functions of their own patch alone.
    variant
        A word that tells it from another entry of the same name.
    """

    name: str
    shows: str
    n_prefix: int
    has_cls: bool
    patch: tuple[int, int] = (16, 16)
    source: str = "timm"
    args: Mapping[str, Any] = field(default_factory=dict)
    heads: int = 4
    grid: tuple[int, int] = GRID
    image_size: tuple[int, int] | None = None
    has_attention: bool = True
    is_local: bool = True
    variant: str = ""

    @property
    def id(self) -> str:
        library = "" if self.source == "timm" else "open_clip"
        return " ".join(filter(None, (library, self.name, self.variant)))

    @property
    def width(self) -> int:
        return int({**SMALL, **self.args}["embed_dim"])

    @property
    def pixels(self) -> tuple[int, int]:
        (rows, columns), (height, width) = self.grid, self.patch
        return self.image_size or (rows * height, columns * width)


def _timm(name: str, shows: str, n_prefix: int, has_cls: bool, **more: Any) -> Architecture:
    return Architecture(name, shows, n_prefix, has_cls, **more)


def _hybrid(name: str, shows: str, patch: int, has_cls: bool = True, **more: Any) -> Architecture:
    return Architecture(
        name, shows, int(has_cls), has_cls, patch=(patch, patch), is_local=False, **more
    )


def _clip(name: str, shows: str, patch: int, **more: Any) -> Architecture:
    return Architecture(name, shows, 1, True, patch=(patch, patch), source="open_clip", **more)


def _trunk(name: str, shows: str, n_prefix: int, has_cls: bool, **more: Any) -> Architecture:
    return Architecture(name, shows, n_prefix, has_cls, source="trunk", **more)


_14 = {"patch": (14, 14)}
_MBCONV = VitCfg(
    embed_dim=(16, 32, SMALL["embed_dim"]),
    depths=(1, 1, 1),
    stem_width=16,
    conv_cfg=VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6),
    head_type="1d",
)
# Its stem is as wide as the blocks.
_MCI = {"embed_dim": 768}
_NO_CLS = {"class_token": False, "global_pool": "avg"}

ACCEPTED: tuple[Architecture, ...] = (
    # Plain ViTs, by timm's `VisionTransformer`
    _timm("vit_base_patch16_224", "the plain ViT: AugReg, DINO, MAE, MoCo v3", 1, True),
    _timm("vit_small_patch8_224", "patches of 8 pixels", 1, True, patch=(8, 8)),
    _timm("vit_large_patch32_224", "patches of 32 pixels", 1, True, patch=(32, 32)),
    _timm(
        "vit_tiny_patch16_224",
        "patches that are not square",
        1,
        True,
        patch=(16, 8),
        args={"patch_size": (16, 8)},
        variant="patch 16x8",
    ),
    _timm(
        "vit_tiny_patch16_224",
        "no CLS token by argument",
        0,
        False,
        args=_NO_CLS,
        variant="without CLS",
    ),
    _timm(
        "vit_tiny_patch16_224",
        "CLS token kept, mean pooling",
        1,
        True,
        args={"global_pool": "avg"},
        variant="mean pooling",
    ),
    _timm(
        "vit_tiny_patch16_224",
        "sizes that are set at run time",
        1,
        True,
        args={"dynamic_img_size": True},
        variant="dynamic size",
    ),
    _timm(
        "vit_tiny_patch16_224",
        "images that are padded to whole patches",
        1,
        True,
        args={"dynamic_img_size": True, "dynamic_img_pad": True},
        image_size=(40, 60),
        variant="padded",
    ),
    _timm(
        "vit_tiny_patch16_224",
        "q/k norm, norm of the heads' outputs, MLP norm",
        1,
        True,
        args={"qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True},
        variant="norms",
    ),
    _timm(
        "vit_tiny_patch16_224",
        "no position embedding",
        1,
        True,
        args={"pos_embed": "none"},
        variant="no positions",
    ),
    _timm(
        "vit_tiny_patch16_224",
        "patch dropout, off in evaluation",
        1,
        True,
        args={"patch_drop_rate": 0.5, "drop_path_rate": 0.5, "attn_drop_rate": 0.5},
        variant="dropout",
    ),
    _timm("vit_small_patch16_36x1_224", "LayerScale, deep and narrow", 1, True),
    _timm("deit3_base_patch16_224", "LayerScale, positions of the grid alone", 1, True),
    _timm("deit_tiny_patch16_224", "DeiT", 1, True),
    _timm("deit_base_distilled_patch16_224", "distillation token beside CLS", 2, True),
    _timm("vit_base_patch14_dinov2", "DINOv2: LayerScale, patches of 14", 1, True, **_14),
    _timm("vit_small_patch14_reg4_dinov2", "DINOv2 with 4 registers", 5, True, **_14),
    _timm(
        "vit_giant_patch14_reg4_dinov2",
        "the same with SwiGLU",
        5,
        True,
        args={"mlp_ratio": 4},
        **_14,
    ),
    _timm("vit_base_patch14_reg1_tipsv2", "TIPSv2: one register", 2, True, **_14),
    _timm(
        "vit_base_patch16_radio_v3",
        "RADIO: 7 registers, of which some summarise for its further teachers",
        8,
        True,
    ),
    _timm("vit_huge_patch14_gap_224", "I-JEPA: no CLS", 0, False, **_14),
    _timm("vit_giant_patch16_gap_224", "I-JEPA, patches of 16", 0, False),
    _timm("vit_base_patch16_siglip_224", "SigLIP, SigLIP 2: no CLS, attention pooling", 0, False),
    _timm("vit_base_patch16_siglip_gap_224", "SigLIP without its pooling", 0, False),
    _timm("vit_so400m_patch14_siglip_384", "SigLIP of so400m's shape", 0, False, **_14),
    _timm("vit_giantopt_patch16_siglip_256", "SigLIP 2 g-opt", 0, False),
    _timm("vit_base_patch16_clip_224", "CLIP in timm: norm before the blocks", 1, True),
    _timm("vit_base_patch32_clip_quickgelu_224", "quick GELU", 1, True, patch=(32, 32)),
    _timm("vit_huge_patch14_clip_quickgelu_378", "DFN, MetaCLIP", 1, True, **_14),
    _timm("vit_xsmall_patch16_clip_224", "TinyCLIP", 1, True),
    _timm("vit_betwixt_patch32_clip_224", "CLIP of an odd width", 1, True, patch=(32, 32)),
    _timm("eva_large_patch14_196", "EVA's plain L", 1, True, **_14),
    _timm("vit_intern300m_patch14_448", "InternViT", 1, True, **_14),
    _timm("vit_base_patch16_rpn_224", "norms after the branches", 0, False),
    _timm("beit3_base_patch16_224", "BEiT-3: norms inside attention and MLP", 1, True),
    _timm("aimv2_large_patch14_224", "AIMv2: RMSNorm, SwiGLU, no biases", 0, False, **_14),
    _timm("flexivit_small", "FlexiViT: positions of the grid alone", 1, True),
    _timm("vit_medium_patch16_gap_256", "no CLS, mean pooling", 0, False),
    _timm("vit_wee_patch16_reg1_gap_256", "a register without CLS", 1, False),
    _timm("vit_little_patch16_reg4_gap_256", "4 registers without CLS", 4, False),
    _timm("vit_so150m_patch16_reg4_map_256", "registers and attention pooling", 4, False),
    _timm("vit_so150m2_patch16_reg1_gap_256", "no biases in q, k and v", 1, False),
    _timm("test_vit3", "attention pooling over registers too", 1, False),
    _timm("test_vit4", "RMSNorm", 1, False),
    # Attention that is not one module of each block
    _timm(
        "vit_base_patch16_xp_224",
        "attention and MLP in one (ViT-22B): the block itself is tapped; q/k norm",
        1,
        True,
    ),
    _timm("vit_pwee_patch16_reg1_gap_256", "the same with a register", 1, False),
    _timm(
        "vit_small_patch16_18x2_224",
        "two attentions a block: heads of the first, then of the second",
        1,
        True,
        heads=8,
    ),
    _timm(
        "vit_dlittle_patch16_reg1_gap_256",
        "differential attention: tokens only",
        1,
        False,
        has_attention=False,
    ),
    _timm(
        "vit_dpwee_patch16_reg1_gap_256",
        "the same in one with the MLP: tokens only",
        1,
        False,
        has_attention=False,
    ),
    # Convolutions, then a plain ViT
    _hybrid("vit_small_r26_s32_224", "ResNet-26 before the blocks", 32, grid=(2, 3)),
    _hybrid("vit_base_r50_s16_224", "ResNet-50 before the blocks", 16),
    _hybrid("vit_tiny_r_s16_p8_224", "ResNet stem and patches of 8 of its positions", 32),
    _hybrid("vit_base_mci_224", "MobileCLIP-B: convolutional stem", 16, args=_MCI),
    _hybrid(
        "vitamin_small_224",
        "ViTamin: MBConv stages before the blocks",
        16,
        has_cls=False,
        args={"embed_cfg": _MBCONV},
    ),
    # Relative positions
    _timm("beit_base_patch16_224", "BEiT: a table of relative positions in each block", 1, True),
    _timm(
        "beit_base_patch16_224",
        "BEiT as pretrained: one table for all blocks",
        1,
        True,
        args={"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
        variant="shared table",
    ),
    _timm("beitv2_base_patch16_224", "BEiT v2", 1, True),
    _timm("vit_relpos_base_patch16_224", "relative positions by an MLP or a table", 0, False),
    _timm("vit_relpos_base_patch16_clsgap_224", "the same with CLS", 1, True),
    _timm("vit_srelpos_small_patch16_224", "positions shared by all blocks", 0, False),
    _timm("vit_relpos_medium_patch16_rpn_224", "norms after the branches", 0, False),
    # Rotary positions and others of timm's `Eva`
    _timm("eva_giant_patch14_224", "EVA, EVA-CLIP", 1, True, **_14),
    _timm("eva02_tiny_patch14_224", "EVA-02: rotary positions, SwiGLU", 1, True, **_14),
    _timm("eva02_base_patch14_448", "EVA-02 with norms inside attention and MLP", 1, True, **_14),
    _timm("eva02_base_patch16_clip_224", "EVA-02-CLIP", 1, True),
    _timm("eva02_enormous_patch14_clip_224", "norms after the branches", 1, True, **_14),
    _timm("vit_medium_patch16_rope_reg1_gap_256", "rotary, register, no CLS", 1, False),
    _timm("vit_betwixt_patch16_rope_reg4_gap_256", "rotary, 4 registers, no CLS", 4, False),
    _timm("vit_base_patch16_rope_224", "RoPE-ViT, axial", 1, True),
    _timm("vit_small_patch16_rope_ape_224", "axial and learned positions", 1, True),
    _timm("vit_base_patch16_rope_mixed_224", "frequencies of each block its own", 1, True),
    _timm("vit_small_patch16_rope_mixed_ape_224", "the same and learned positions", 1, True),
    _timm("vit_small_patch16_dinov3", "DINOv3: rotary, 4 registers", 5, True),
    _timm("vit_base_patch16_dinov3_qkvb", "DINOv3 with biases of q and v", 5, True),
    _timm("vit_small_plus_patch16_dinov3", "DINOv3 with SwiGLU", 5, True),
    _timm("vit_7b_patch16_dinov3", "DINOv3 7B's kind", 5, True),
    _timm("vit_base_patch16_lingbot", "LingBot-Vision", 5, True),
    _timm(
        "vit_large_patch16_sapiens2",
        "Sapiens2: q/k norm, heads that share keys and values, 8 registers",
        9,
        True,
        args={"num_kv_heads": (2, 4)},
    ),
    _timm("vit_pe_core_base_patch16_224", "Perception Encoder: CLS and pooling", 1, True),
    _timm("vit_pe_core_gigantic_patch14_448", "Perception Encoder without CLS", 0, False, **_14),
    _timm("vit_pe_lang_large_patch14_448", "the same with LayerScale", 1, True, **_14),
    _timm("vit_pe_spatial_base_patch16_512", "Perception Encoder, spatial", 1, True),
    # Any size, and encoders of language models
    _timm("naflexvit_base_patch16_gap", "NaFlex: size set at run time", 4, False),
    _timm("naflexvit_base_patch16_parfac_gap", "positions of rows and columns", 4, False),
    _timm("naflexvit_base_patch16_map", "attention pooling", 1, False),
    _timm("naflexvit_base_patch16_siglip", "SigLIP 2 NaFlex", 0, False),
    _timm("naflexvit_base_patch16_radio_v3", "RADIO", 8, True),
    _timm(
        "naflexvit_base_patch16_gap",
        "gated attention, rotary positions",
        4,
        False,
        args={"attn_gated": True, "rope_type": "axial"},
        variant="gated",
    ),
    _timm("deepseek_vit_412m_enc", "DeepSeek's encoder", 0, False, **_14),
    _timm("deepseek_vit_412m", "the same in a classifier", 0, False, **_14),
    _timm("qwen3_vit_88m_enc", "Qwen3's encoder", 0, False),
    _timm("qwen3_vit_306m_merge", "the same in a classifier", 0, False, grid=(4, 6)),
    _timm(
        "gemma4_vit_167m_enc",
        "Gemma's encoder: norms of q, k and v, scores not divided",
        0,
        False,
        args={"head_dim": 16, "intermediate_size": 96, "position_embedding_size": 16},
        grid=(3, 6),
    ),
    _timm(
        "gemma4_vit_570m",
        "the same in a classifier; heads that share keys and values",
        0,
        False,
        args={
            "head_dim": 16,
            "num_kv_heads": 2,
            "intermediate_size": 96,
            "position_embedding_size": 16,
        },
    ),
    # Image towers of open_clip
    _clip("ViT-B-32", "CLIP, LAION", 32),
    _clip("ViT-B-16-quickgelu", "OpenAI, DFN, MetaCLIP", 16),
    _clip("ViT-H-14-CLIPA", "mean pooling, no norm before the blocks, norm after pooling", 14),
    _clip("ViT-M-16-alt", "LayerScale", 16),
    _clip("coca_ViT-B-32", "CoCa: attention pooling", 32),
    _clip("coca_base", "CoCa: returns its tokens", 18),
    _clip(
        "ViT-B-32",
        "q/k norm, norms after attention, scaled heads: open_clip's own attention",
        32,
        args={
            "qk_norm": True,
            "scale_heads": True,
            "scale_attn_inner": True,
            "scale_attn": True,
            "scale_fc": True,
        },
        variant="custom blocks",
    ),
    _clip(
        "ViT-B-16",
        "fixed sine positions, patch dropout",
        16,
        args={"pos_embed_type": "sin_cos_2d", "patch_dropout": 0.5},
        grid=(3, 3),
        variant="sine positions",
    ),
    _trunk("ViT-B-16-SigLIP", "SigLIP, SigLIP 2", 0, False),
    _trunk("EVA01-g-14", "EVA-CLIP", 1, True, **_14),
    _trunk("EVA02-B-16", "EVA-02-CLIP", 1, True),
    _trunk("EVA02-E-14", "EVA-02-CLIP, norms after the branches", 1, True, **_14),
    _trunk("PE-Core-B-16", "Perception Encoder", 1, True),
    _trunk("MobileCLIP-B", "convolutional stem", 1, True, args=_MCI, is_local=False),
    _trunk(
        "ViTamin-S",
        "MBConv stages before the blocks",
        0,
        False,
        args={"embed_cfg": _MBCONV},
        is_local=False,
    ),
    _trunk("vit_medium_patch16_gap_256", "no CLS", 0, False),
    _trunk("vit_relpos_medium_patch16_cls_224", "relative positions", 1, True),
)


@dataclass(frozen=True, eq=False)
class Refused:
    """One architecture that is no plain ViT.

    Attributes
    ----------
    name
        timm's or open_clip's name.
    shows
        What it is.
    reason
        Words of the message.
    source
        timm or open_clip.
    args
        What it is shrunk by, where its embedding must run to tell. The others are refused by their
        build alone, and need no weights.
    """

    name: str
    shows: str
    reason: str
    source: str = "timm"
    args: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        return self.name if self.source == "timm" else f"{self.source} {self.name}"


_STAGES = "its layers see grids of different sizes"
_LATE = "its first block gets the grid without the 1 prefix token"
_UNKNOWN = "has no attention that vitfeat knows"

REFUSED: tuple[Refused, ...] = (
    Refused("swin_tiny_patch4_window7_224", "Swin: windows, stages", _STAGES),
    Refused("swinv2_tiny_window8_256", "Swin v2", _STAGES),
    Refused("swinv2_cr_tiny_224", "Swin v2, another implementation", _STAGES),
    Refused("samvit_base_patch16_224", "Segment Anything: windows", "attend within windows of 14"),
    Refused("hiera_tiny_224", "Hiera: stages", _STAGES),
    Refused("sam2_hiera_tiny", "Segment Anything 2", _STAGES),
    Refused("mvitv2_tiny", "MViT v2: pooled keys and values", _STAGES),
    Refused("pvt_v2_b0", "Pyramid ViT", _STAGES),
    Refused("twins_pcpvt_small", "Twins", _STAGES),
    Refused("nest_tiny", "NesT", _STAGES),
    Refused("pit_ti_224", "Pooling ViT", _STAGES),
    Refused("levit_128s", "LeViT", _STAGES),
    Refused("volo_d1_224", "VOLO: outlook attention", _STAGES),
    Refused("crossvit_tiny_240", "CrossViT: two streams", _STAGES),
    Refused("coat_tiny", "CoaT", _STAGES),
    Refused("tiny_vit_5m_224", "TinyViT", _STAGES),
    Refused("maxvit_tiny_rw_224", "MaxViT: windows and grids", _STAGES),
    Refused("coatnet_0_rw_224", "CoAtNet", _STAGES),
    Refused("davit_tiny", "DaViT", _STAGES),
    Refused("gcvit_xxtiny", "Global Context ViT", _STAGES),
    Refused("focalnet_tiny_srf", "FocalNet", _STAGES),
    Refused("fastvit_t8", "FastViT", _STAGES),
    Refused("mobilevit_xxs", "MobileViT", _STAGES),
    Refused("efficientvit_b0", "EfficientViT (MIT)", _STAGES),
    Refused("efficientvit_m0", "EfficientViT (MSRA)", _STAGES),
    Refused("efficientformer_l1", "EfficientFormer", _STAGES),
    Refused("edgenext_xx_small", "EdgeNeXt", _STAGES),
    Refused("nextvit_small", "Next-ViT", _STAGES),
    Refused("visformer_tiny", "Visformer", _STAGES),
    Refused("caformer_s18", "MetaFormer", _STAGES),
    Refused("botnet26t_256", "ResNet with attention", _STAGES),
    Refused("mobilenetv4_hybrid_medium", "MobileNet v4 with attention", _STAGES),
    Refused("resnet18", "a convolutional network", _STAGES),
    Refused("convnext_atto", "ConvNeXt", _STAGES),
    Refused("tnt_s_patch16_224", "TNT: tokens within tokens", _UNKNOWN),
    Refused("mixer_s16_224", "MLP-Mixer: no attention", _UNKNOWN),
    Refused("gmlp_ti16_224", "gMLP: no attention", _UNKNOWN),
    Refused("convmixer_768_32", "ConvMixer: no attention", _UNKNOWN),
    Refused("cait_xxs24_224", "CaiT: CLS joins in blocks of its own", _LATE, args=SMALL),
    Refused(
        "convit_tiny", "ConViT: CLS joins between the blocks", _LATE, args={**SMALL, "depth": 11}
    ),
    Refused(
        "xcit_nano_12_p16_224",
        "XCiT: attention between channels; CLS joins in blocks of its own",
        _LATE,
        args=SMALL,
    ),
    Refused("RN50", "CLIP's ResNet", "it has no stack of transformer blocks", "open_clip"),
    Refused("convnext_base", "CLIP's ConvNeXt", _STAGES, "open_clip"),
    Refused("MobileCLIP-S1", "FastViT", _STAGES, "open_clip"),
    Refused("swin_base_patch4_window7_224", "CLIP's Swin", _STAGES, "open_clip"),
)
