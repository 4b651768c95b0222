_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

model = dict(
    # What it loads is said below.
    pretrained=None,
    data_preprocessor=transfer.normalization(),
    # Stride 8, as the base's.
    backbone=transfer.backbone(
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False),
    decode_head=dict(in_channels=transfer.out_channels()[3]),
    auxiliary_head=dict(in_channels=transfer.out_channels()[2]))

data_root = '{{$DATA_ROOT:data/VOCdevkit/VOC2012}}'
train_dataloader = dict(
    dataset=dict(datasets=[
        dict(
            type='PascalVOCDataset',
            data_root=data_root,
            data_prefix=dict(img_path='JPEGImages', seg_map_path=labels),
            ann_file=f'ImageSets/Segmentation/{part}.txt',
            pipeline={{_base_.train_pipeline}})
        for part, labels in (('train', 'SegmentationClass'),
                             ('aug', 'SegmentationClassAug'))
    ]))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
custom_imports = dict(imports=['dspnet_mm'], allow_failed_imports=False)
