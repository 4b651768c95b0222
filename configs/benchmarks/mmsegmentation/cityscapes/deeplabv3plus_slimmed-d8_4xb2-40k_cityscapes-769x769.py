_base_ = './fcn_slimmed-d8_4xb2-40k_cityscapes-769x769.py'

# After _base_, so that MMEngine reads this file as a config.
from mmengine.hub import get_config  # noqa: E402

from dspnet_mm import transfer  # noqa: E402

# The same but for the head.
model = dict(
    decode_head=dict(
        get_config('mmseg::deeplabv3plus/'
                   'deeplabv3plus_r50-d8_4xb2-40k_cityscapes-769x769.py').
        model.decode_head,
        _delete_=True,
        in_channels=transfer.out_channels()[3],
        c1_in_channels=transfer.out_channels()[0]))
