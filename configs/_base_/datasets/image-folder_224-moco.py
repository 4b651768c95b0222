_base_ = './image-folder_224.py'

# Crops of a fifth of the image at least, as MMSelfSup's MoCo v2 and v3 have
# them.
crop = [
    dict(
        type='RandomResizedCrop',
        size=224,
        scale=(0.2, 1.0),
        interpolation='area')
]
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='MultiView', num_views=2, transforms=[crop]),
    dict(type='PackSelfSupInputs', meta_keys=['img_path', 'converted'])
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
