_base_ = './image-folder_32.py'

# A folder of photographs, seen at 128 pixels: what a CPU can pre-train on for
# detection and segmentation. Where there are few of them, many views of each.
crop = [
    dict(
        type='RandomResizedCrop',
        size=128,
        scale=(0.08, 1.0),
        interpolation='area')
]
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='MultiView', num_views=2, transforms=[crop]),
    dict(type='PackSelfSupInputs', meta_keys=['img_path', 'converted'])
]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
