_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    data_preprocessor=transfer.normalization(),
    backbone=transfer.backbone(
        stem='imagenet',
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        norm_eval=False),
    neck=dict(in_channels=transfer.out_channels(), norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg)))

data_root = '{{$DATA_ROOT:data/VOCdevkit}}/'
train_dataloader = dict(
    dataset=dict(
        dataset=dict(datasets=[
            dict(
                type='VOCDataset',
                data_root=data_root,
                ann_file=f'VOC{year}/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root=f'VOC{year}/'),
                filter_cfg=dict(
                    filter_empty_gt=True, min_size=32, bbox_min_size=32),
                pipeline={{_base_.train_pipeline}}) for year in (2007, 2012)
        ])))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
custom_imports = dict(imports=['dspnet_mm'], allow_failed_imports=False)
